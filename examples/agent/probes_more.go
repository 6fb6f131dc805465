//go:build monitor

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"time"

	"github.com/pawl-ota/pawl/monitor"
	"github.com/pawl-ota/pawl/monitor/probe"
	"github.com/pawl-ota/pawl/monitor/probe/web"
)

// askMore asks what only this agent knows to ask.
func (q question) askMore(kind string, c *config) (ask monitor.Ask, about string, err error) {
	switch kind {
	case "marked":
		return askMark(c), "", nil
	case "http":
		return q.HTTP.ask()
	case "unit":
		return probe.Unit{Name: q.Unit, Restarts: q.Restarts}.Ask(), q.Unit, nil
	case "file":
		if q.File.Path == "" || q.File.Age == 0 {
			return nil, "", errors.New("path and age are needed")
		}
		return probe.Fresh(q.File.Path, time.Duration(q.File.Age)), q.File.Path, nil
	case "process":
		p := *q.Process
		if p.Name == "" && p.PIDFile == "" {
			return nil, "", errors.New("name or pidFile is needed")
		}
		return probe.Process{Name: p.Name, PIDFile: p.PIDFile, Least: p.Least}.Ask(), p.Name + p.PIDFile, nil
	}
	return q.askMachine(kind)
}

// askMachine is for what is asked of the device itself.
func (q question) askMachine(kind string) (ask monitor.Ask, about string, err error) {
	switch kind {
	case "disk":
		d := *q.Disk
		if d.Path == "" || d.FreeBytes <= 0 && d.FreePercent <= 0 && d.FreeInodes <= 0 {
			return nil, "", errors.New("path, and freeBytes, freePercent or freeInodes are needed")
		}
		return probe.Disk{Path: d.Path, FreeBytes: d.FreeBytes, FreePercent: d.FreePercent, FreeInodes: d.FreeInodes}.Ask(), d.Path, nil
	case "memory":
		m := *q.Memory
		if m.AvailableBytes <= 0 && m.AvailablePercent <= 0 {
			return nil, "", errors.New("availableBytes or availablePercent is needed")
		}
		return probe.Memory{AvailableBytes: m.AvailableBytes, AvailablePercent: m.AvailablePercent}.Ask(), "", nil
	}
	if q.Temperature.Max == 0 {
		return nil, "", errors.New("max is needed")
	}
	return probe.Temperature{Sensors: q.Temperature.Sensors, Max: q.Temperature.Max}.Ask(), "", nil
}

// ask returns the question for a page. What it is about holds no password of
// the URL, and nothing of its query.
func (p *page) ask() (ask monitor.Ask, about string, err error) {
	u, err := url.Parse(p.URL)
	if err != nil || u.Host == "" || !isWeb(p.URL) {
		return nil, "", errors.New("url is not one of http:// or https://")
	}
	get := web.Get{URL: p.URL, Status: p.Status, Valid: time.Duration(p.Valid)}
	if p.Body != "" {
		if get.Body, err = regexp.Compile(p.Body); err != nil {
			return nil, "", fmt.Errorf("body: %w", err)
		}
	}
	if p.CA == "" {
		return get.Ask(), u.Host + u.Path, nil
	}
	return func(ctx context.Context) (string, error) { return trusting(ctx, get, p.CA) }, u.Host + u.Path, nil
}

// trusting asks for a page with the authorities of a file, which is read each
// time: a broken one is a sick probe, and keeps no device from going back.
func trusting(ctx context.Context, get web.Get, file string) (string, error) {
	pool, err := authorities(file)
	if err != nil {
		return "", err
	}
	get.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	return get.Ask()(ctx)
}
