package main

import (
	"crypto"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/pawl-ota/pawl/ota/publish"
)

// open opens the repository with all keys that are in the folder; the root's
// only where the verb signs with them.
func (c *command) open(progress func(publish.Progress), without ...publish.Role) (*publish.Repository, error) {
	keys, err := c.keyDir(false).LoadAll(append(without, publish.Root)...)
	if err != nil {
		return nil, err
	}
	o := publish.Options{Dir: c.repo, Keys: keys, Wait: c.wait, Progress: progress}
	if c.flags.Lookup("full") != nil { // release
		o.Deltas, o.Full = orNone(c.deltas), orNone(c.full)
	}
	return publish.Open(o)
}

// orNone says none as the options do, in which 0 means what is usual.
func orNone(n int) int {
	if n == 0 {
		return -1
	}
	return n
}

// ceremony is a change of keys: the repository, and the keys that sign it, which
// grow by those that are made.
type ceremony struct {
	c    *command
	r    *publish.Repository
	dir  publish.KeyDir
	keys publish.Keys
	made []string // public halves
}

func (c *command) ceremony() (*ceremony, error) {
	dir := c.keyDir(c.encrypt)
	keys, err := dir.LoadAll()
	if err != nil {
		return nil, err
	}
	r, err := publish.Open(publish.Options{Dir: c.repo, Keys: keys, Wait: c.wait})
	return &ceremony{c: c, r: r, dir: dir, keys: keys}, err
}

// add returns the public keys of -add, or makes n keys for role.
func (m *ceremony) add(role publish.Role, n int) (list []crypto.PublicKey, err error) {
	if m.c.add != "" {
		for _, file := range strings.Split(m.c.add, ",") {
			key, err := publish.ReadPublicKey(file)
			if err != nil {
				return nil, err
			}
			list = append(list, key)
		}
		return list, nil
	}
	for range n {
		key, path, err := m.dir.New(role, m.c.encrypt || m.c.secret != "")
		if err != nil {
			return nil, err
		}
		list, m.keys[role], m.made = append(list, key.Public()), append(m.keys[role], key), append(m.made, path)
	}
	return list, nil
}

// end prints the keys that were made and what came of the change.
func (m *ceremony) end(err error, what string, args ...any) error {
	if err != nil && !errors.Is(err, publish.ErrWaiting) {
		for _, path := range m.made {
			fmt.Fprintf(m.c.errs, "publisher: the new key %s may not be in use: look at list, and remove it if it is not there\n", path)
		}
		return err
	}
	for _, path := range m.made {
		m.c.printKey(path)
	}
	if err != nil {
		return m.c.waits(m.r, err)
	}
	fmt.Fprintf(m.c.out, what+"\n", args...)
	return nil
}

func (c *command) printKey(public string) {
	id := "unreadable"
	if key, err := publish.ReadPublicKey(public); err == nil {
		id, _ = publish.KeyID(key)
	}
	fmt.Fprintf(c.out, "key         %.12s %s (the private half is beside it)\n", id, public)
}

func (c *command) key() error {
	_, path, err := c.keyDir(true).New(publish.Role(c.role), c.encrypt || c.secret != "")
	if err == nil {
		c.printKey(path)
	}
	return err
}

func (c *command) rotate() error {
	roles := strings.Split(c.role, ",")
	if len(roles) > 1 && (c.remove != "" || c.add != "") {
		return fmt.Errorf("%w: -remove and -add are for one role at a time", errUsage)
	}
	m, err := c.ceremony()
	if err != nil {
		return err
	}
	s, err := m.r.Status()
	if err != nil {
		return err
	}
	var changes []publish.RoleChange
	for _, role := range roles {
		change, err := m.roleChange(s, publish.Role(role))
		if err != nil {
			return err
		}
		changes = append(changes, change)
	}
	return m.end(m.r.Rotate(c.ctx, changes...), "rotated     %s", strings.Join(roles, ", "))
}

// roleChange finds out which keys go and which come.
func (m *ceremony) roleChange(s publish.Status, role publish.Role) (publish.RoleChange, error) {
	c, change := m.c, publish.RoleChange{Role: role, Threshold: m.c.threshold}
	for _, r := range s.Roles {
		if r.Role != role {
			continue
		}
		switch {
		case c.remove != "":
			for _, name := range strings.Split(c.remove, ",") {
				id, err := findKey(name, r.Keys)
				if err != nil {
					return change, err
				}
				change.Remove = append(change.Remove, id)
			}
		case c.add == "" && c.threshold == 0 && c.fresh < 0:
			change.Remove = r.Keys // all of them
		}
		n := c.fresh
		if n < 0 {
			n = max(len(change.Remove), c.threshold-(len(r.Keys)-len(change.Remove)))
		}
		var err error
		change.Add, err = m.add(role, n)
		return change, err
	}
	return change, fmt.Errorf("%w: the repository has no role %q", errUsage, role)
}

// findKey finds the id of a key by the file of its public half or by its first
// digits.
func findKey(name string, ids []string) (string, error) {
	if _, err := os.Stat(name); err == nil {
		key, err := publish.ReadPublicKey(name)
		if err != nil {
			return "", err
		}
		return publish.KeyID(key)
	}
	found := ""
	for _, id := range ids {
		if len(name) >= 8 && strings.HasPrefix(id, name) {
			found = id
		}
	}
	if found == "" {
		return "", fmt.Errorf("%w: %q is neither the file of a public key nor the beginning of a key's id", errUsage, name)
	}
	return found, nil
}

func (c *command) renew() error {
	m, err := c.ceremony()
	if err != nil {
		return err
	}
	return m.end(m.r.Renew(c.ctx), "renewed     root")
}

func (c *command) delegate() error {
	if c.variant == "" {
		return fmt.Errorf("%w: -variant is missing", errUsage)
	}
	m, err := c.ceremony()
	if err != nil {
		return err
	}
	keys, err := m.add(publish.Role(c.name), max(1, c.threshold))
	if err != nil {
		return err
	}
	d := publish.Delegation{Name: c.name, Variants: strings.Split(c.variant, ","), Keys: keys, Threshold: c.threshold}
	return m.end(m.r.Delegate(c.ctx, d), "delegated   %s to %s", strings.Join(d.Variants, ", "), d.Name)
}

func (c *command) revoke() error {
	m, err := c.ceremony()
	if err != nil {
		return err
	}
	return m.end(m.r.Revoke(c.ctx, c.name, c.adopt), "revoked     %s", c.name)
}

func (c *command) drop() error {
	if (c.seq == "") == (c.last == 0) {
		return fmt.Errorf("%w: one of -seq and -last has to be given", errUsage)
	}
	r, err := c.open(nil)
	if err != nil {
		return err
	}
	if c.last != 0 {
		seqs, err := r.KeepLast(c.ctx, c.oneVariant(), c.last)
		if err != nil {
			return c.waits(r, err)
		}
		fmt.Fprintf(c.out, "dropped     %d releases of %s\n", len(seqs), c.oneVariant())
		return nil
	}
	var seqs []uint64
	for _, word := range strings.Split(c.seq, ",") {
		seq, err := parseSeq(word)
		if err != nil {
			return err
		}
		seqs = append(seqs, seq)
	}
	if err := r.Drop(c.ctx, c.oneVariant(), seqs...); err != nil {
		return c.waits(r, err)
	}
	fmt.Fprintf(c.out, "dropped     %s of %s\n", c.seq, c.oneVariant())
	return nil
}

func (c *command) retry() error {
	seq, err := parseSeq(c.seq)
	if err != nil {
		return err
	}
	r, err := c.open(nil)
	if err != nil {
		return err
	}
	attempt, err := r.Retry(c.ctx, c.oneVariant(), seq)
	if err != nil {
		return c.waits(r, err)
	}
	fmt.Fprintf(c.out, "raised      the attempt of %s seq %d to %d: devices that condemned it try it again\n", c.oneVariant(), seq, attempt)
	return nil
}

func (c *command) oneVariant() string {
	if c.variant == "" {
		return "default"
	}
	return c.variant
}

func parseSeq(word string) (uint64, error) {
	seq, err := strconv.ParseUint(word, 10, 53)
	if err != nil || seq == 0 {
		return 0, fmt.Errorf("%w: -seq %q is not the seq of a release", errUsage, word)
	}
	return seq, nil
}
