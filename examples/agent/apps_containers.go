//go:build containers

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/container"
	"github.com/pawl-ota/pawl/monitor/probe"
	"github.com/pawl-ota/pawl/ota/compose"
)

const withContainers = true

// composeApp is an app as the agent sees it.
type composeApp struct {
	*container.Compose
	name string
}

func (a *agent) newApp(name string, c component) (app, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	options := container.Options{
		Name: name, Dir: filepath.Join(a.config.State, "apps", name), Host: c.Engine, Warn: a.warn,
		Values: compose.Values{DeviceID: a.config.Device.ID, Hardware: a.config.Device.Hardware, Hostname: host},
	}
	if len(c.Login) > 0 {
		options.Credentials = func(ctx context.Context, registry string) (container.Login, error) {
			return askLogin(ctx, c.Login, registry)
		}
	}
	if len(c.Wipe) > 0 {
		options.Wipe = func(ctx context.Context) error { return runProgram(ctx, c.Wipe) }
	}
	if len(c.Revive) > 0 {
		options.Restart = func(ctx context.Context) error { return runProgram(ctx, c.Revive) }
	}
	made, err := container.New(options)
	if err != nil {
		return nil, err
	}
	return &composeApp{made, name}, nil
}

func (c *composeApp) services(ctx context.Context) (all []service, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	some, err := c.Services(ctx)
	for _, s := range some {
		all = append(all, service{c.name, s.Name, s.Container, s.Image, s.State, s.Health, s.Exit, s.Restarts, s.Started, s.String()})
	}
	return all, err
}

// askLogin asks a program that keeps to the protocol of Docker's credential
// helpers. What it answers goes nowhere else, so that errors hold none of it.
func askLogin(ctx context.Context, argv []string, registry string) (container.Login, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.WaitDelay = strings.NewReader(registry+"\n"), &out, time.Second
	if err := cmd.Run(); err != nil {
		return container.Login{}, fmt.Errorf("%s: %w", argv[0], err)
	}
	var says struct{ Username, Secret string }
	if err := json.Unmarshal(out.Bytes(), &says); err != nil {
		return container.Login{}, fmt.Errorf("%s did not answer as a credential helper does", argv[0])
	}
	if says.Username == "<token>" {
		return container.Login{Token: says.Secret}, nil
	}
	return container.Login{Username: says.Username, Password: says.Secret}, nil
}

// runProgram runs a program that does something to the engine.
func runProgram(ctx context.Context, argv []string) error {
	said, err := probe.Exec{Args: argv, Env: os.Environ()}.Ask()(ctx)
	if err != nil && said != "" {
		err = fmt.Errorf("%w: %q", err, said)
	}
	return err
}

// appKinds are the kinds of error that apps bring along.
func appKinds() []kind {
	return []kind{
		{container.ErrEngine, "engine", exitOther, "the container engine does not answer; nothing is lost"},
		{container.ErrPlatform, "platform", exitOther, "publish the release with images for this device's processor"},
		{container.ErrLost, "lost", exitOther, "somebody removed what was staged: run update again"},
		{container.ErrImage, "image", exitOther, "the engine makes another image of what it is given: mend its store"},
	}
}
