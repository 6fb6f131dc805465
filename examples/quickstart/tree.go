package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// tree is a folder that a release is made of. The first error stays.
type tree struct {
	version, dir string
	err          error
}

// treeDir is where the maker has the folder of one version.
func (m *maker) treeDir(version string) string { return filepath.Join(m.dir, "trees", version) }

// tree begins the folder of a version as a copy of an earlier one, or empty.
func (m *maker) tree(version, from string) *tree {
	t := &tree{version: version, dir: m.treeDir(version)}
	t.err = os.MkdirAll(t.dir, 0o755)
	if from != "" && t.err == nil {
		t.err = os.CopyFS(t.dir, os.DirFS(m.treeDir(from)))
	}
	t.add("version", []byte(version+"\n"))
	return t
}

func (t *tree) add(name string, data []byte) {
	path := filepath.Join(t.dir, name)
	if t.err == nil {
		t.err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if t.err == nil {
		t.err = os.WriteFile(path, data, 0o644)
	}
}

func (t *tree) remove(name string) {
	if t.err == nil {
		t.err = os.Remove(filepath.Join(t.dir, name))
	}
}

// program adds what the device asks for its health.
func (t *tree) program(body string) { t.add("selftest", []byte("#!/bin/sh\n"+body+"\n")) }

// noise is data that does not compress.
func noise(seed int64, size int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], uint64(seed))
	data := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(data) // it never fails
	return data
}

// text is data that does.
func text(n, size int) []byte {
	line := fmt.Sprintf("<p>page %d of the manual</p>\n", n)
	return []byte(strings.Repeat(line, size/len(line)+1)[:size])
}

// look walks a folder and returns how much is in it and a sum over all of it.
func look(dir string) (files int, bytes int64, sum string, err error) {
	h := sha256.New()
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		files, bytes = files+1, bytes+int64(len(data))
		fmt.Fprintf(h, "%q %x\n", rel, sha256.Sum256(data))
		return err
	})
	return files, bytes, fmt.Sprintf("%x", h.Sum(nil)), err
}
