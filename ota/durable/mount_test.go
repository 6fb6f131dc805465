package durable

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const mounts = `22 1 254:0 / / rw,relatime - ext4 /dev/root rw
23 22 0:20 / /run rw,nosuid - tmpfs tmpfs rw,size=10k
24 22 0:21 / /data rw shared:1 master:2 - ext4 /dev/sdb rw,barrier=0
25 22 0:22 / /o rw - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
26 22 0:23 / /v rw - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w,volatile
27 22 0:24 / /m rw - overlay overlay rw,lowerdir=/l,upperdir=/run/u,workdir=/run/w
28 22 0:25 / /run/with\040space rw - ext4 /dev/sdc rw
29 22 0:26 / /over rw - tmpfs tmpfs rw
30 22 0:27 / /over rw - xfs /dev/sdd rw
31 22 0:28 / /x rw,nobarrier - xfs /dev/sde rw
a line of another shape
`

func TestVolatileMounts(t *testing.T) {
	for path, why := range map[string]string{
		"/var/lib/state":  "",
		"/run":            "/run is tmpfs",
		"/run/x":          "/run is tmpfs",
		"/running":        "",
		"/data/x":         "/data is mounted without barriers",
		"/x/y":            "/x is mounted without barriers",
		"/o/x":            "",
		"/v/x":            "/v is a volatile overlay",
		"/m/x":            "/run is tmpfs",
		"/run/with space": "",
		"/over/x":         "",
	} {
		err := volatile(parseMounts(mounts), path, 0)
		if why == "" {
			require.NoError(t, err, path)
			continue
		}
		require.ErrorIs(t, err, ErrVolatile, path)
		require.True(t, strings.HasSuffix(err.Error(), why), "%s: %v", path, err)
	}
}
