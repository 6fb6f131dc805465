package container

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pawl-ota/pawl/internal/testneeds"
)

// TestIntroduce has the kernel ask for addresses on a link where nobody is: one that
// it was told it knows then, and another it goes on to ask for. What it did not ask
// for it is not told.
func TestIntroduce(t *testing.T) {
	testneeds.Root(t)
	ip := testneeds.Program(t, "ip")
	run := func(args ...string) string {
		out, err := exec.Command(ip, args...).CombinedOutput()
		if err != nil {
			return err.Error() + ": " + string(out)
		}
		return string(out)
	}
	ended, shown := make(chan error, 1), ""
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its network
		ended <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			for _, args := range [][]string{
				{"link", "add", "here", "type", "veth", "peer", "name", "there"}, {"link", "set", "here", "up"}, {"link", "set", "there", "up"},
				{"addr", "add", "10.9.0.1/24", "dev", "here"}, {"addr", "add", "fd09::1/64", "dev", "here", "nodad"},
			} {
				if says := run(args...); says != "" {
					return errors.New(says)
				}
			}
			mac, all := net.HardwareAddr{2, 0, 0, 0, 0, 9}, []address(nil)
			for _, to := range []string{"10.9.0.2", "10.9.0.3", "fd09::2", "fd09::3"} {
				c, err := net.Dial("udp", net.JoinHostPort(to, "9"))
				if err != nil {
					return err
				}
				_, err = c.Write([]byte("who is there?"))
				if err = errors.Join(err, c.Close()); err != nil {
					return err
				}
			}
			for _, is := range []string{"10.9.0.2", "10.9.0.4", "fd09::2", "fd09::4"} {
				all = append(all, address{netip.MustParseAddr(is), mac})
			}
			err := introduce(all)
			shown = run("neigh", "show", "dev", "here")
			return err
		}()
	}()
	require.NoError(t, <-ended)
	t.Log(shown)
	for _, known := range []string{`10\.9\.0\.2`, "fd09::2"} {
		require.Regexp(t, `(?m)^`+known+` lladdr 02:00:00:00:00:09`, shown)
	}
	require.Regexp(t, `(?m)^10\.9\.0\.3  *INCOMPLETE`, shown)
	require.NotContains(t, shown, "10.9.0.4")
	require.NotContains(t, shown, "fd09::4")
}

// TestAddresses takes from an engine's words what are addresses.
func TestAddresses(t *testing.T) {
	mac := net.HardwareAddr{2, 0x42, 0xa, 0xd5, 0, 2}
	one := address{netip.MustParseAddr("10.213.0.2"), mac}
	require.Equal(t, []address{one, {netip.MustParseAddr("fd00::2"), mac}}, addresses(nil, mac.String(), "10.213.0.2", "fd00::2"))
	require.Equal(t, []address{one}, addresses([]address{one}, mac.String(), "", "nonsense"))
	require.Empty(t, addresses(nil, "", "10.213.0.2"))
}
