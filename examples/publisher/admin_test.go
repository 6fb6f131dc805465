package main

import (
	"crypto"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pawl-ota/pawl/ota/publish"
)

func (s site) call(t *testing.T, verb string, args ...string) result {
	t.Helper()
	return call(t, append([]string{verb, "-repo", s.repo, "-keys", s.keys}, args...)...)
}

func (s site) status(t *testing.T) (st publish.Status) {
	r := call(t, "status", "-repo", s.repo, "-json")
	require.Equal(t, 0, r.code, r.errs)
	require.NoError(t, json.Unmarshal([]byte(r.out), &st))
	return st
}

// TestRotateVerb: which keys go and come, by the flags.
func TestRotateVerb(t *testing.T) {
	s := newSite(t)
	keys := func(i int) []string { return s.status(t).Roles[i].Keys }
	before := keys(1)
	r := s.call(t, "rotate", "-role", "targets")
	require.Equal(t, 0, r.code, r.errs)
	require.FileExists(t, filepath.Join(s.keys, "targets.2.pem"))
	require.Len(t, keys(1), 1)
	require.NotEqual(t, before, keys(1))

	r = s.call(t, "rotate", "-role", "targets", "-threshold", "2")
	require.Equal(t, 0, r.code, r.errs)
	require.Len(t, keys(1), 2, "a key is made for the threshold")
	r = s.call(t, "rotate", "-role", "targets", "-new", "1", "-type", "ecdsa")
	require.Equal(t, 0, r.code, r.errs)
	require.Len(t, keys(1), 3)
	gone := keys(1)[0]
	r = s.call(t, "rotate", "-role", "targets", "-remove", gone[:8], "-new", "0", "-threshold", "1")
	require.Equal(t, 0, r.code, r.errs)
	require.Len(t, keys(1), 2)
	require.NotContains(t, keys(1), gone)
	r = s.call(t, "rotate", "-role", "timestamp,snapshot,root", "-type", "rsa")
	require.Equal(t, 0, r.code, r.errs)
	require.Equal(t, 0, s.release(t, minimal).code)
	require.Equal(t, 0, call(t, "verify", "-repo", s.repo).code)

	for _, args := range [][]string{
		{"-role", "targets", "-threshold", "0"},
		{"-role", "targets", "-threshold", "17"},
		{"-role", "nobody"},
		{"-role", "targets,snapshot", "-remove", gone},
		{"-role", "targets", "-remove", "ab"},
		{"-role", "targets", "-remove", gone[:8]},
		{},
	} {
		r := s.call(t, "rotate", args...)
		require.Equal(t, 2, r.code, "%v: %s", args, r.errs)
	}
	st := s.status(t)
	require.NoError(t, os.Rename(filepath.Join(s.keys, "root.2.pem"), filepath.Join(s.dir, "away")))
	r = s.call(t, "renew")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.errs, "1 have to sign")
	require.Equal(t, st, s.status(t))
}

// TestListSaysWhenUpdatesStop is what an operator looks for.
func TestListSaysWhenUpdatesStop(t *testing.T) {
	s := newSite(t)
	require.Equal(t, 0, s.call(t, "delegate", "-name", "team-a", "-variant", "arm64,armv7").code)
	st := s.status(t)
	require.Equal(t, publish.Timestamp, st.StopsBy)
	r := call(t, "list", "-repo", s.repo)
	require.Contains(t, r.out, "if nobody refreshes, devices find no updates after "+date(st.Stops)+" (timestamp)")
	require.Regexp(t, `team-a +1 +\d{4}-\d\d-\d\d +1 of 1 +[0-9a-f]{12} +arm64,armv7`, r.out)

	require.Equal(t, 0, s.call(t, "renew", "-wait").code, "all keys are here")
	require.NoError(t, os.Remove(filepath.Join(s.keys, "root.1.pem")))
	require.Equal(t, 1, s.call(t, "renew").code)
	r = s.call(t, "renew", "-wait")
	require.Equal(t, 0, r.code, r.errs)
	require.Contains(t, r.out, "root version 3")
	r = call(t, "list", "-repo", s.repo)
	require.Contains(t, r.out, "waits for signatures since")
	require.Contains(t, r.out, "signed by 0 of 1 for root 2")
	require.Equal(t, 0, call(t, "cancel", "-repo", s.repo).code)
	require.NotContains(t, call(t, "list", "-repo", s.repo).out, "waits")
	require.Equal(t, 1, s.call(t, "sign").code, "nothing waits")
	require.Equal(t, 2, call(t, "sign").code)
}

// TestRefreshSaysWhatIsDue: a job that lacks keys tells by its exit code.
func TestRefreshSaysWhatIsDue(t *testing.T) {
	s := newSite(t)
	dir := publish.KeyDir{Path: s.keys}
	key, _, err := dir.New("team", false)
	require.NoError(t, err)
	keys, err := dir.LoadAll()
	require.NoError(t, err)
	repo, err := publish.Open(publish.Options{Dir: s.repo, Keys: keys, Lifetimes: publish.Lifetimes{Targets: 30 * 24 * time.Hour}})
	require.NoError(t, err)
	require.NoError(t, repo.Delegate(t.Context(), publish.Delegation{Name: "team", Variants: []string{"arm"}, Keys: []crypto.PublicKey{key.Public()}}))
	require.NoError(t, os.Remove(filepath.Join(s.keys, "targets.1.pem")))
	r := s.call(t, "refresh")
	require.Equal(t, 4, r.code, r.errs)
	require.Contains(t, r.out, "refreshed   team, snapshot, timestamp")
	require.Contains(t, r.errs, "targets expires on")
	require.NotContains(t, r.errs, "team expires")
	require.Equal(t, 0, call(t, "verify", "-repo", s.repo).code)
	require.NoError(t, os.Remove(filepath.Join(s.keys, "timestamp.1.pem")))
	require.Equal(t, 1, s.call(t, "refresh").code)
}

func TestDropAndRetryVerbs(t *testing.T) {
	s := newSite(t)
	for range 4 {
		require.Equal(t, 0, s.release(t, minimal).code)
	}
	r := s.call(t, "drop", "-last", "2")
	require.Equal(t, 0, r.code, r.errs)
	require.Contains(t, r.out, "2 releases of default")
	require.Equal(t, 0, s.call(t, "drop", "-seq", "4").code)
	r = s.call(t, "retry", "-seq", "3")
	require.Equal(t, 0, r.code, r.errs)
	require.Contains(t, r.out, "seq 3 to 1")
	require.Equal(t, 1, s.call(t, "retry", "-seq", "4").code)
	require.Equal(t, 1, s.call(t, "drop", "-variant", "arm", "-seq", "1").code)
	for _, args := range [][]string{{"drop"}, {"drop", "-seq", "0"}, {"drop", "-seq", "1", "-last", "1"}, {"retry"}, {"retry", "-seq", "x"}} {
		require.Equal(t, 2, s.call(t, args[0], args[1:]...).code, args)
	}
	r = s.release(t, minimal)
	require.Contains(t, r.out, "seq 5", "no seq is given twice")
}

// TestSecretsAreNotTold: nothing of a private key or a passphrase is printed,
// whatever goes wrong.
func TestSecretsAreNotTold(t *testing.T) {
	s := newSite(t)
	secret := s.write(t, "secret", "open sesame\n")
	private, err := os.ReadFile(filepath.Join(s.keys, "root.1.pem"))
	require.NoError(t, err)
	line := strings.Split(string(private), "\n")[1]
	for _, args := range [][]string{
		{"rotate", "-role", "targets", "-encrypt", "-passphrase-file", secret},
		{"rotate", "-role", "timestamp", "-add", filepath.Join(s.keys, "root.1.pem")},
		{"rotate", "-role", "root", "-remove", filepath.Join(s.keys, "root.1.pem")},
		{"sign"},
		{"refresh", "-passphrase-file", filepath.Join(s.keys, "root.1.pem")},
	} {
		r := s.call(t, args[0], args[1:]...)
		require.NotContains(t, r.out+r.errs, line, args)
		require.NotContains(t, r.out+r.errs, "open sesame", args)
	}
	require.FileExists(t, filepath.Join(s.keys, "targets.2.pem.age"))
}

// TestPassphraseByDescriptor: a passphrase need not lie in a file.
func TestPassphraseByDescriptor(t *testing.T) {
	s := newSite(t)
	cheap := publish.KeyDir{Path: s.keys + "-2", WorkFactor: 10, Passphrase: func(string) (string, error) { return "open sesame", nil }}
	keys, err := cheap.Make(1, true)
	require.NoError(t, err)
	repo, err := publish.Open(publish.Options{Dir: s.repo + "-2", Keys: keys})
	require.NoError(t, err)
	require.NoError(t, repo.Create(t.Context(), "gateway", 1))
	for pass, want := range map[string]bool{"open sesame\n": true, "wrong\n": false, "": false} {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		_, err = w.WriteString(pass)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		cmd := program("refresh", "-repo", s.repo+"-2", "-keys", s.keys+"-2", "-passphrase-file", "/dev/fd/3")
		cmd.ExtraFiles = []*os.File{r}
		out, err := cmd.CombinedOutput()
		require.NoError(t, r.Close())
		require.Equal(t, want, err == nil, "%s", out)
	}
}
