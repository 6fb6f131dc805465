//go:build monitor

package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pawl-ota/pawl/examples/bar"
	"github.com/pawl-ota/pawl/ota"
)

// bundleLogs writes one archive for whoever is to find out what is wrong. What
// cannot be had is named in it, and keeps nothing else back.
func bundleLogs(ctx context.Context, a *agent) answer {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	name := fmt.Sprintf("pawl-%s-%s", fileWord(a.config.Device.ID), time.Now().UTC().Format("20060102T150405Z"))
	path := a.args.name
	if path == "" {
		path = name + ".tar.gz"
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return failed("cannot write the archive", err)
	}
	b := newBundle(f, name, a)
	err = errors.Join(b.fill(ctx, a), b.close(), f.Close())
	if err != nil {
		return failed("cannot write the archive", errors.Join(err, os.Remove(path)))
	}
	return answer{File: path, Line: fmt.Sprintf("wrote %s: %d files, %s; passwords, keys and tokens are left out", path, b.files, bar.Size(b.bytes))}
}

// fileWord makes a part of a file's name of a text.
func fileWord(text string) string {
	word := strings.Map(func(r rune) rune {
		if r < 0x80 && (r == '-' || r == '_' || r == '.' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z') {
			return r
		}
		return '_'
	}, text)
	return strings.TrimLeft(word[:min(len(word), 64)], ".-")
}

// bundle is an archive that is being written. Everything in it passes through
// scrub.
type bundle struct {
	zip     *gzip.Writer
	tar     *tar.Writer
	scrub   *scrubber
	folder  string
	made    time.Time
	files   int
	bytes   int64
	missing []string // what could not be had, and why
}

func newBundle(w io.Writer, folder string, a *agent) *bundle {
	zip := gzip.NewWriter(w)
	return &bundle{zip: zip, tar: tar.NewWriter(zip), scrub: newScrubber(a), folder: folder, made: time.Now().Truncate(time.Second)}
}

func (b *bundle) close() error { return errors.Join(b.tar.Close(), b.zip.Close()) }

// fill puts everything in.
func (b *bundle) fill(ctx context.Context, a *agent) error {
	ans := status(ctx, a)
	ans.Command = "status"
	var text strings.Builder
	printAnswer(ans, args{}, &text, &text)
	past, noPast := ota.ReadHistory(a.config.stateDir())
	config, noConfig := redacted(a.args.config)
	for _, d := range []struct {
		name string
		v    any
		err  error
	}{
		{"status.json", ans, nil}, {"history.json", past, noPast}, {"config.json", config, noConfig}, {"device.json", factsOf(a.config), nil},
	} {
		if err := b.jsonOr(d.name, d.v, d.err); err != nil {
			return err
		}
	}
	return b.more(ctx, a, text.String())
}

// more puts in what is read from the device.
func (b *bundle) more(ctx context.Context, a *agent, status string) error {
	if err := b.text("status.txt", status); err != nil {
		return err
	}
	record, err := readJournal(a.config)
	if err = b.jsonOr("journal.json", record, err); err != nil {
		return err
	}
	versions, err := readTrust(filepath.Join(a.config.State, "trust"))
	if err = b.jsonOr("metadata.json", versions, err); err != nil {
		return err
	}
	if err := b.text("state.txt", listing(a.config.State)); err != nil {
		return err
	}
	if err := b.logs(ctx, unitsOf(a.config)); err != nil {
		return err
	}
	return b.json("bundle.json", map[string]any{"format": "pawl-bundle/0", "made": b.made.UTC(), "agent": buildOf(), "missing": b.missing})
}

// lacks notes what could not be had.
func (b *bundle) lacks(what string, err error) { b.missing = append(b.missing, what+": "+err.Error()) }

func (b *bundle) jsonOr(name string, v any, err error) error {
	if err != nil {
		b.lacks(name, err)
		return nil
	}
	return b.json(name, v)
}

// json adds a document. Its texts are scrubbed one by one, so that it stays
// JSON.
func (b *bundle) json(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var plain any
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.UseNumber()
	if err := dec.Decode(&plain); err != nil {
		return err
	}
	if data, err = json.MarshalIndent(b.scrub.value(plain), "", "  "); err != nil {
		return err
	}
	return b.add(name, data)
}

func (b *bundle) text(name, text string) error { return b.add(name, []byte(b.scrub.text(text))) }

// add writes one file.
func (b *bundle) add(name string, data []byte) error {
	b.files, b.bytes = b.files+1, b.bytes+int64(len(data))
	head := &tar.Header{Name: b.folder + "/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: b.made, Format: tar.FormatPAX}
	if err := b.tar.WriteHeader(head); err != nil {
		return err
	}
	_, err := b.tar.Write(data)
	return err
}

// logs adds the last lines of units of systemd, where journalctl is there.
func (b *bundle) logs(ctx context.Context, units []string) error {
	show := []string{"journalctl", "--quiet", "--no-pager", "--output=short-iso", "--lines=2000"}
	for _, u := range units {
		text, err := output(ctx, append(show, "--unit="+u))
		if err != nil {
			b.lacks("logs/"+u, err)
			continue
		}
		if err := b.text("logs/"+fileWord(u)+".log", text); err != nil {
			return err
		}
	}
	text, err := output(ctx, append(show, "--dmesg", "--boot"))
	if err != nil {
		b.lacks("logs/kernel", err)
		return nil
	}
	return b.text("logs/kernel.log", text)
}
