package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/pawl-ota/pawl/ota/compose"
)

// limited is an engine of whose calls each has a limit, and that waits a while
// for one that is not there yet.
type limited struct {
	e    engine
	opts Options

	mu    sync.Mutex
	info  engineInfo
	asked time.Time // when info was
}

// infoStays is how long what an engine says of itself is not asked again: it takes
// longer to say than most, and changes only where the engine is set up anew.
const infoStays = 10 * time.Second

// do makes one call. What could not be asked at all is asked again: an engine
// that is just being started does not listen.
func (l *limited) do(ctx context.Context, what string, limit time.Duration, f func(context.Context) error) error {
	wait, cancel := context.WithTimeout(ctx, l.opts.EngineWait)
	defer cancel()
	for {
		err := l.once(ctx, limit, f)
		if err == nil {
			return nil
		}
		again := time.NewTimer(100 * time.Millisecond)
		if !errors.Is(err, ErrEngine) {
			again.Stop()
			return fmt.Errorf("cannot %s: %w", what, err)
		}
		select {
		case <-again.C:
		case <-wait.Done():
			again.Stop()
			return fmt.Errorf("cannot %s: %w", what, err)
		}
	}
}

func (l *limited) once(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := f(ctx)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w (limit %v): %w", ctx.Err(), limit, err)
	}
	return err
}

func limit1[T any](ctx context.Context, l *limited, what string, f func(context.Context) (T, error)) (v T, err error) {
	err = l.do(ctx, what, l.opts.CallLimit, func(ctx context.Context) (err error) {
		v, err = f(ctx)
		return err
	})
	return v, err
}

func (l *limited) call(ctx context.Context, what string, f func(context.Context) error) error {
	return l.do(ctx, what, l.opts.CallLimit, f)
}

func (l *limited) Info(ctx context.Context) (engineInfo, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.asked.IsZero() && time.Since(l.asked) < infoStays {
		return l.info, nil
	}
	info, err := limit1(ctx, l, "ask the engine", l.e.Info)
	if err == nil {
		l.info, l.asked = info, time.Now()
	}
	return info, err
}

func (l *limited) Image(ctx context.Context, ref string) (imageInfo, error) {
	return limit1(ctx, l, "look at image "+ref, func(ctx context.Context) (imageInfo, error) { return l.e.Image(ctx, ref) })
}

func (l *limited) Tagged(ctx context.Context, repository string) ([]imageInfo, error) {
	return limit1(ctx, l, "list images", func(ctx context.Context) ([]imageInfo, error) { return l.e.Tagged(ctx, repository) })
}

func (l *limited) Load(ctx context.Context, archive io.Reader) error {
	return l.once(ctx, l.opts.TransferLimit, func(ctx context.Context) error { return l.e.Load(ctx, archive) })
}

func (l *limited) Save(ctx context.Context, ref string) (io.ReadCloser, error) {
	return l.read(ctx, "cannot read image "+ref, func(ctx context.Context) (io.ReadCloser, error) { return l.e.Save(ctx, ref) })
}

func (l *limited) Files(ctx context.Context, ref string, labels map[string]string) (io.ReadCloser, error) {
	return l.read(ctx, "cannot read the files of image "+ref, func(ctx context.Context) (io.ReadCloser, error) { return l.e.Files(ctx, ref, labels) })
}

// read has the limit end with the reader.
func (l *limited) read(ctx context.Context, what string, f func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, error) {
	ctx, cancel := context.WithTimeout(ctx, l.opts.TransferLimit)
	r, err := f(ctx)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return &saving{r, cancel}, nil
}

type saving struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (s *saving) Close() error {
	defer s.cancel()
	return s.ReadCloser.Close()
}

func (l *limited) Pull(ctx context.Context, ref string, login Login) error {
	return l.do(ctx, "pull "+ref, l.opts.TransferLimit, func(ctx context.Context) error { return l.e.Pull(ctx, ref, login) })
}

func (l *limited) Tag(ctx context.Context, id, tag string) error {
	return l.call(ctx, "tag "+tag, func(ctx context.Context) error { return l.e.Tag(ctx, id, tag) })
}

func (l *limited) Untag(ctx context.Context, ref string, force bool) error {
	return l.call(ctx, "remove image "+ref, func(ctx context.Context) error { return l.e.Untag(ctx, ref, force) })
}

func (l *limited) Boxes(ctx context.Context, label, value string) ([]box, error) {
	return limit1(ctx, l, "list containers", func(ctx context.Context) ([]box, error) { return l.e.Boxes(ctx, label, value) })
}

func (l *limited) Box(ctx context.Context, id string) (box, error) {
	return limit1(ctx, l, "look at container "+short(id), func(ctx context.Context) (box, error) { return l.e.Box(ctx, id) })
}

func (l *limited) Published(ctx context.Context) (map[uint16]bool, error) {
	return limit1(ctx, l, "list ports", l.e.Published)
}

func (l *limited) Create(ctx context.Context, s boxSpec) (string, error) {
	return limit1(ctx, l, "make container "+s.Name, func(ctx context.Context) (string, error) { return l.e.Create(ctx, s) })
}

func (l *limited) Start(ctx context.Context, id string) error {
	return l.call(ctx, "start container "+short(id), func(ctx context.Context) error { return l.e.Start(ctx, id) })
}

func (l *limited) Stop(ctx context.Context, id string, grace time.Duration) error {
	return l.do(ctx, "stop container "+short(id), l.opts.CallLimit+grace, func(ctx context.Context) error { return l.e.Stop(ctx, id, grace) })
}

func (l *limited) SetName(ctx context.Context, id, name string) error {
	return l.call(ctx, "rename container "+short(id)+" to "+name, func(ctx context.Context) error { return l.e.SetName(ctx, id, name) })
}

func (l *limited) SetRestart(ctx context.Context, id string, r compose.Restart) error {
	return l.call(ctx, "set the restart policy of container "+short(id), func(ctx context.Context) error { return l.e.SetRestart(ctx, id, r) })
}

func (l *limited) Remove(ctx context.Context, id string) error {
	return l.call(ctx, "remove container "+short(id), func(ctx context.Context) error { return l.e.Remove(ctx, id) })
}

func (l *limited) Networks(ctx context.Context) ([]network, error) {
	return limit1(ctx, l, "list networks", l.e.Networks)
}

func (l *limited) CreateNetwork(ctx context.Context, name string, n compose.Network, labels map[string]string) (string, error) {
	return limit1(ctx, l, "make network "+name, func(ctx context.Context) (string, error) { return l.e.CreateNetwork(ctx, name, n, labels) })
}

func (l *limited) RemoveNetwork(ctx context.Context, id string) error {
	return l.call(ctx, "remove network "+short(id), func(ctx context.Context) error { return l.e.RemoveNetwork(ctx, id) })
}

func (l *limited) Volumes(ctx context.Context) ([]volume, error) {
	return limit1(ctx, l, "list volumes", l.e.Volumes)
}

func (l *limited) CreateVolume(ctx context.Context, v compose.Volume, labels map[string]string) error {
	return l.call(ctx, "make volume "+v.Engine, func(ctx context.Context) error { return l.e.CreateVolume(ctx, v, labels) })
}

func (l *limited) RemoveVolume(ctx context.Context, name string) error {
	return l.call(ctx, "remove volume "+name, func(ctx context.Context) error { return l.e.RemoveVolume(ctx, name) })
}

// short is an engine's id for people.
func short(id string) string { return id[:min(12, len(id))] }
