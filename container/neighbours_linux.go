package container

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// introduce tells the kernel the hardware addresses of a container that runs now,
// where the kernel is asking for them already. An engine has a container's ports
// open before the container has its addresses: the first client then has the kernel
// ask for an address that nobody has yet, and it asks again a second later. Nothing
// is told that was not asked, and the kernel checks what it was told as it does with
// what it has learned by itself (the state is "stale").
//
// It needs the engine's network to be this process's, and CAP_NET_ADMIN. Where it
// cannot be done the first client waits that second.
func introduce(all []address) error {
	if len(all) == 0 {
		return nil
	}
	asked, err := unanswered()
	if err != nil {
		return fmt.Errorf("cannot list the kernel's neighbours: %w", err)
	}
	var problems error
	for _, n := range asked {
		for _, a := range all {
			if a.IP != n.ip {
				continue
			}
			if err := answer(n, a.MAC); err != nil && !errors.Is(err, unix.ENOENT) {
				problems = errors.Join(problems, fmt.Errorf("cannot tell the kernel where %v is: %w", a.IP, err))
			}
		}
	}
	return problems
}

// neighbour is an address on a link whose hardware address the kernel asks for.
type neighbour struct {
	ip   netip.Addr
	link int32
}

// headSize is the length of struct ndmsg, which a message about a neighbour begins
// with: family, the link's index at 4, and the state at 8 (include/uapi/linux/neighbour.h).
const headSize = 12

// unanswered lists the neighbours that the kernel asks for.
func unanswered() ([]neighbour, error) {
	data, err := syscall.NetlinkRIB(unix.RTM_GETNEIGH, unix.AF_UNSPEC)
	if err != nil {
		return nil, err
	}
	messages, err := syscall.ParseNetlinkMessage(data)
	if err != nil {
		return nil, err
	}
	var all []neighbour
	for _, m := range messages {
		if m.Header.Type != unix.RTM_NEWNEIGH || len(m.Data) < headSize {
			continue
		}
		state := binary.NativeEndian.Uint16(m.Data[8:])
		ip, ok := netip.AddrFromSlice(attribute(m.Data[headSize:], unix.NDA_DST))
		if ok && state&(unix.NUD_INCOMPLETE|unix.NUD_FAILED) != 0 {
			all = append(all, neighbour{ip, int32(binary.NativeEndian.Uint32(m.Data[4:]))})
		}
	}
	return all, nil
}

// attribute returns the first attribute of a kind, or nothing.
func attribute(data []byte, kind uint16) []byte {
	for len(data) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(data))
		if size < unix.SizeofRtAttr || size > len(data) {
			return nil
		}
		if binary.NativeEndian.Uint16(data[2:]) == kind {
			return data[unix.SizeofRtAttr:size]
		}
		data = data[min((size+3)&^3, len(data)):]
	}
	return nil
}

// answer gives a neighbour that the kernel knows of its hardware address.
func answer(n neighbour, mac net.HardwareAddr) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return err
	}
	if err := unix.Sendto(fd, answerMessage(n, mac), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	reply := make([]byte, os.Getpagesize())
	size, _, err := unix.Recvfrom(fd, reply, 0)
	if err != nil {
		return err
	}
	if size < unix.SizeofNlMsghdr+4 {
		return unix.EBADMSG
	}
	if code := int32(binary.NativeEndian.Uint32(reply[unix.SizeofNlMsghdr:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

// answerMessage is the message: without NLM_F_CREATE it makes no neighbour.
func answerMessage(n neighbour, mac net.HardwareAddr) []byte {
	family := byte(unix.AF_INET)
	if n.ip.Is6() {
		family = unix.AF_INET6
	}
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.NativeEndian, v) }
	put(unix.NdMsg{Family: family, Ifindex: n.link, State: unix.NUD_STALE})
	for kind, value := range map[uint16][]byte{unix.NDA_DST: n.ip.AsSlice(), unix.NDA_LLADDR: mac} {
		put(unix.RtAttr{Len: uint16(unix.SizeofRtAttr + len(value)), Type: kind})
		b.Write(value)
		b.Write(make([]byte, -len(value)&3))
	}
	var all bytes.Buffer
	_ = binary.Write(&all, binary.NativeEndian, unix.NlMsghdr{
		Len: uint32(unix.SizeofNlMsghdr + b.Len()), Type: unix.RTM_NEWNEIGH, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_REPLACE,
	})
	return append(all.Bytes(), b.Bytes()...)
}
