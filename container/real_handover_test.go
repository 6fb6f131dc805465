//go:build linux

package container

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/internal/dockerd"
	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
)

// handoverApp is version n of an app whose one service is handed over, in a network
// that is somebody else's.
func handoverApp(t testing.TB, n int) testApp {
	return realApp(t, n).changed(t, func(a *compose.App) {
		v := a.Services[0]
		v.Strategy, v.Mounts = compose.Handover, nil
		v.Command = append([]string{}, v.Command[0], v.Command[1], v.Command[4], v.Command[5])
		v.Networks = []compose.Attachment{{Network: "edge", Aliases: []string{"back"}}}
		a.Services, a.Files, a.Volumes = []compose.Service{v}, nil, nil
		a.Networks = []compose.Network{{Name: "edge", Engine: "edge", External: true}}
	})
}

// handoverOfAnEngine takes a service there and back behind a front of somebody
// else's, of whom a client wants an answer every 5 ms: each request is answered.
func handoverOfAnEngine(t *testing.T, e *dockerd.Engine) {
	r, ctx := newRealRig(t, e), t.Context()
	edge, err := r.b.engine.CreateNetwork(ctx, "edge", compose.Network{}, nil)
	require.NoError(t, err)
	old, next := handoverApp(t, 1), handoverApp(t, 2)
	r.install("one", old)
	w, err := r.b.look(ctx)
	require.NoError(t, err)
	front, err := r.b.engine.Create(ctx, boxSpec{
		Name: "front", Image: w[0].Image, Networks: []attachment{{ID: edge}},
		Service: compose.Service{Command: []string{"-addr", ":80", "-to", "back:80"}, Ports: []compose.Port{{HostIP: "127.0.0.1", HostPort: 8080, Container: 80, Protocol: compose.TCP}}},
	})
	require.NoError(t, err)
	require.NoError(t, r.b.engine.Start(ctx, front))
	r.serves("version 1")

	watch, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	answers, worst := map[string]int{}, time.Duration(0)
	done.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for watch.Err() == nil {
			begin := time.Now()
			answers[r.ask(time.Minute)]++
			worst = max(worst, time.Since(begin))
			<-tick.C
		}
	})
	for _, tx := range []ota.TxID{"two", "three"} {
		_, err = r.b.Stage(ctx, tx, next.c, next.blobs)
		require.NoError(t, err)
		require.NoError(t, r.b.Activate(ctx, tx, next.c))
		if tx == "two" {
			require.NoError(t, r.b.Revert(ctx, tx, next.c))
		} else {
			require.NoError(t, r.b.Commit(ctx, tx, next.c))
		}
		require.Zero(t, r.b.Downtime())
	}
	r.serves("version 2")
	stop()
	done.Wait()
	t.Logf("%v, the slowest answer took %v", answers, worst)
	require.Len(t, answers, 2, "a request was not answered")
	r.empty()
	require.NoError(t, r.b.engine.RemoveNetwork(ctx, edge))
}
