package firmware

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/pawl-ota/pawl/ota/durable"
)

// selection is what the boot loader goes by: the file slots/select.
type selection struct {
	permanent string // the slot that boots; empty for none
	try       string // boots once, before that; empty for none
}

// noSlot stands for no slot in the files.
const noSlot = "-"

func selectPath(dir string) string { return filepath.Join(dir, "slots", "select") }

func readSelection(dir string) (s selection, err error) {
	data, err := os.ReadFile(selectPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	words := strings.Fields(string(data))
	if len(words) != 2 {
		return s, fmt.Errorf("cannot boot: the selection says %q", data)
	}
	return selection{slotOf(words[0]), slotOf(words[1])}, nil
}

func slotOf(word string) string {
	if word == noSlot {
		return ""
	}
	return word
}

func wordOf(slot string) string {
	if slot == "" {
		return noSlot
	}
	return slot
}

// write makes the selection durable.
func (s selection) write(dir string) error {
	return durable.WriteFile(selectPath(dir), []byte(wordOf(s.permanent)+" "+wordOf(s.try)+"\n"), 0o600)
}

// Boot is the boot loader of the device in dir: a slot that is to be tried
// comes up once, else the permanent one. It returns the slot, and writes it
// with a new boot id into the file boot_id, which tells nothing of any other
// boot and so need not be durable; a process that is killed meanwhile leaves it
// whole.
func Boot(dir string) (slot string, err error) {
	s, err := readSelection(dir)
	if err == nil {
		err = sweep(filepath.Join(dir, "slots"))
	}
	if err != nil {
		return "", err
	}
	slot = s.permanent
	if s.try != "" {
		slot = s.try
		if err := (selection{permanent: s.permanent}).write(dir); err != nil {
			return "", err
		}
	}
	id := filepath.Join(dir, "boot_id")
	if err := os.WriteFile(id+".new", []byte(newID()+" "+wordOf(slot)+"\n"), 0o600); err != nil {
		return "", err
	}
	return slot, os.Rename(id+".new", id)
}

// sweep removes what a power cut left of files that were being written.
func sweep(folder string) error {
	names, err := filepath.Glob(filepath.Join(folder, ".pawl-tmp-*"))
	for _, name := range names {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// booted returns the id of this boot, and the slot that came up.
func booted(dir string) (id, slot string, err error) {
	data, err := os.ReadFile(filepath.Join(dir, "boot_id"))
	if err != nil {
		return "", "", err
	}
	words := strings.Fields(string(data))
	if len(words) != 2 {
		return "", "", fmt.Errorf("cannot tell which boot this is: boot_id says %q", data)
	}
	return words[0], slotOf(words[1]), nil
}

func newID() string { return rand.Text() }
