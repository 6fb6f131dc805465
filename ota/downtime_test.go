package ota

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// outage is a backend that says what its last switch cost.
type outage struct {
	Backend
	asked int
}

func (o *outage) Downtime() time.Duration { o.asked++; return time.Second }

// TestDowntimeOfWhatReturned: a backend that did not return may still write what
// it would be asked for.
func TestDowntimeOfWhatReturned(t *testing.T) {
	u, o, tx := &Updater{}, &outage{}, &txState{}
	u.addDowntime(tx, o)
	u.addDowntime(tx, o)
	require.Equal(t, 2*time.Second, tx.Down)
	u.poison = errors.New("a backend did not return in time")
	u.addDowntime(tx, o)
	require.Equal(t, 2, o.asked)
}
