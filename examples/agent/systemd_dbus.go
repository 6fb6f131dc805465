//go:build dbus

package main

import (
	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/micro/systemd"
)

// newSystemd asks systemd over D-Bus.
func newSystemd() (micro.Supervisor, error) { return systemd.New(systemd.Options{}) }
