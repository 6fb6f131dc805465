package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/pawl-ota/pawl/ota/publish"
)

// keyDir returns the folder of the keys. The passphrase is asked for once; a
// new one twice.
func (c *command) keyDir(fresh bool) publish.KeyDir {
	known := ""
	return publish.KeyDir{Path: c.keys, Type: publish.KeyType(c.keyType), Spare: c.spare, Passphrase: func(file string) (string, error) {
		if known != "" {
			return known, nil
		}
		var err error
		if c.secret != "" {
			known, err = firstLine(c.secret)
		} else {
			known, err = c.ask(file, fresh)
		}
		return known, err
	}}
}

// maxSecret is the longest passphrase file in bytes.
const maxSecret = 64 << 10

func firstLine(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return "", err
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	if s := strings.TrimSuffix(string(line), "\r"); s != "" {
		return s, nil
	}
	return "", fmt.Errorf("%s: the first line is empty", path)
}

func (c *command) ask(file string, twice bool) (string, error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return "", fmt.Errorf("%s is encrypted: give -passphrase-file, or run it on a terminal", file)
	}
	read := func(prompt string) (string, error) {
		fmt.Fprint(c.errs, prompt)
		pass, err := term.ReadPassword(fd)
		fmt.Fprintln(c.errs)
		return string(pass), err
	}
	pass, err := read("passphrase of the keys: ")
	if err != nil {
		return "", err
	}
	if pass == "" {
		return "", errors.New("the passphrase is empty")
	}
	if twice {
		again, err := read("once more: ")
		if err != nil {
			return "", err
		}
		if again != pass {
			return "", errors.New("the two passphrases differ")
		}
	}
	return pass, nil
}
