package otatest

import (
	"bytes"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/release"
)

// attack is one of those that The Update Framework and Uptane name.
type attack struct {
	name, aim string
	tries     []try
}

// try is one way to play an attack. play prepares it, and returns the errors of
// which the device's lookup has to end in one.
type try struct {
	name string
	play func(s *stage) []error
}

var attacks = []attack{
	{"arbitrary installation", "have the device install what nobody released", []try{
		{"own keys", ownKeys}, {"own root", ownRoot}, {"own document", ownDocument}, {"own locator", ownLocator},
	}},
	{"endless data", "fill memory, disk or time", endlessTries()},
	{"extraneous dependencies", "have more installed than was released", []try{
		{"a component more", componentMore}, {"a release more", releaseMore},
	}},
	{"fast-forward", "raise versions so far that no good one is above them", []try{{"stolen online keys", fastForward}}},
	{"indefinite freeze", "hold newer releases back", []try{{"old files for ever", freeze}, {"stolen timestamp key", freezeByKey}}},
	{"malicious mirror", "have a mirror decide", []try{
		{"login page", loginPage}, {"roles swapped", rolesSwapped}, {"another repository", anotherRepository},
	}},
	{"mix-and-match", "combine files that never belonged together", []try{
		{"older targets", mixed("targets")}, {"older snapshot", mixed("snapshot")}, {"older document", mixedDocument},
	}},
	{"rollback", "bring an older release back", []try{{"older repository", rollBack}, {"stolen timestamp key", rollBackByKey}}},
	{"key compromise", "sign with fewer keys than the threshold", []try{
		{"one of two keys of targets", oneTargetsKey}, {"one of two keys of root", oneRootKey},
	}},
	{"wrong software", "have a release of other hardware installed", []try{
		{"other hardware", otherHardware}, {"other product under this name", otherProduct},
	}},
	{"eavesdrop", "read what the device and its publisher say", []try{{"between the two", eavesdrop}}},
	{"drop-request", "keep the device from its publisher", []try{{"everything", dropAll}, {"the documents", dropDocuments}}},
	{"slow retrieval", "keep the device waiting", []try{
		{"timestamp trickles", trickle("metadata/timestamp.json")}, {"document trickles", trickle("targets/releases/")}, {"targets stall", stall("metadata/4.targets.json")},
	}},
	{"partial bundle", "give a part of what belongs together", partialTries()},
}

// steal returns the key n of a role; the publisher still has it.
func (s *stage) steal(role string, n int) TUFKey { return s.repo.Roles[role].Keys[n] }

// thief is a repository like the publisher's, with which an attacker may
// do as they like: it has the publisher's root, and the stolen keys alone.
func (s *stage) thief(stolen map[string][]TUFKey) *TUFRepo {
	r := NewTUFRepo(s.t, s.now)
	must(os.RemoveAll(r.Dir))
	for name := range r.Roles {
		if name != "root" {
			r.Roles[name].SetVersion(s.repo.Roles[name].Version())
		}
		if keys, ok := stolen[name]; ok {
			r.Roles[name].Keys = keys
		}
	}
	r.AddRelease("targets", 9, func(r *release.Release) { r.Version = "rogue" })
	r.Publish()
	s.copyRoots(r)
	return r
}

// copyRoots lays the publisher's roots into another repository.
func (s *stage) copyRoots(to *TUFRepo) {
	must(os.RemoveAll(filepath.Join(to.Dir, "metadata", "1.root.json")))
	for v := 1; v <= s.repo.Roles["root"].Version(); v++ {
		name := to.RoleFile("root", v)
		to.Write(name, s.repo.read(name))
	}
}

func (r *TUFRepo) read(name string) []byte {
	data, err := os.ReadFile(filepath.Join(r.Dir, filepath.FromSlash(name)))
	must(err)
	return data
}

// document returns the name of the file of a target of the newest release.
func (s *stage) document(kind string) string {
	return s.documentOf(s.repo, kind, s.newest)
}

func (s *stage) documentOf(r *TUFRepo, kind string, seq uint64) string {
	name := releaseTarget(kind, release.ID{Product: tufDevice.Product, Variant: tufDevice.Variant, Seq: seq})
	sum := r.Roles["targets"].Signed["targets"].(Object)[name].(Object)["hashes"].(Object)["sha256"].(string)
	folder, base := filepath.Split(name)
	return "targets/" + folder + sum + "." + base
}

func ownKeys(s *stage) []error {
	s.mirror = s.thief(nil)
	return []error{s.h.Threshold}
}

func ownRoot(s *stage) []error {
	s.mirror = NewTUFRepo(s.t, s.now)
	s.mirror.PublishRoot()
	s.mirror.AddRelease("targets", 9, nil)
	s.mirror.Publish()
	return []error{s.h.Threshold}
}

func ownDocument(s *stage) []error {
	name := s.document("release")
	s.mirror.Write(name, bytes.Replace(s.mirror.read(name), []byte(`"1.3"`), []byte(`"6.6"`), 1))
	return []error{ota.ErrDigest}
}

func ownLocator(s *stage) []error {
	name := s.document("locator")
	data := s.mirror.read(name)
	s.mirror.Write(name, append(data[:len(data)-2], data[len(data)-1], ' '))
	return []error{ota.ErrDigest}
}

// endlessTries makes each file endless in turn: a TiB long in a folder.
func endlessTries() (tries []try) {
	for _, name := range []string{"metadata/2.root.json", "metadata/timestamp.json", "metadata/4.snapshot.json", "metadata/4.targets.json", "release", "locator"} {
		tries = append(tries, try{strings.TrimSuffix(filepath.Base(name), ".json"), func(s *stage) []error {
			file := name
			if !strings.HasPrefix(name, "metadata/") {
				file = s.document(name)
			}
			s.mirror.Write(file, nil)
			must(os.Truncate(filepath.Join(s.mirror.Dir, file), 1<<40))
			s.answer(file, func(w http.ResponseWriter, _ *http.Request) {
				for err := error(nil); err == nil; {
					_, err = w.Write(bytes.Repeat([]byte(" "), 64<<10))
				}
			})
			return []error{s.h.TooLarge, ota.ErrLength}
		}})
	}
	return tries
}

// answer has the server answer f for files whose names begin with prefix.
func (s *stage) answer(prefix string, f http.HandlerFunc) {
	if !s.online {
		return
	}
	s.server = ServeTUF(s.t, s.mirror.Dir)
	s.server.Tamper(func(name string, w http.ResponseWriter, r *http.Request) bool {
		ours := strings.HasPrefix(name, prefix)
		if ours {
			f(w, r)
		}
		return ours
	})
}

func componentMore(s *stage) []error {
	name := s.document("release")
	r, err := release.Parse(s.mirror.read(name))
	must(err)
	extra := r.Components[0]
	extra.Name = "extra"
	r.Components = append(r.Components, extra)
	data, err := r.Encode()
	must(err)
	s.mirror.Write(name, data)
	return []error{ota.ErrLength}
}

func releaseMore(s *stage) []error {
	name := s.repo.RoleFile("targets", s.repo.Roles["targets"].Version())
	file := parseSigned(s.mirror.read(name))
	targets := file["signed"].(Object)["targets"].(Object)
	targets["releases/kiosk/arm/9.json"] = targets["releases/kiosk/arm/3.json"]
	s.mirror.Write(name, canonical(file))
	return []error{s.h.Untrusted}
}

// fastForward: the device may take the versions, and still the publisher's
// releases alone. New keys in the root bring it back, and the thief's files are
// worth nothing then.
func fastForward(s *stage) []error {
	thief := s.mirror
	thief.Roles = map[string]*TUFRole{}
	for name, role := range s.repo.Roles {
		signed := Object{}
		for k, v := range role.Signed {
			signed[k] = v
		}
		thief.Roles[name] = &TUFRole{signed, slices.Clone(role.Keys)}
	}
	thief.Roles["snapshot"].SetVersion(1 << 30)
	thief.Roles["timestamp"].SetVersion(1 << 30)
	thief.Roles["snapshot"].Expire(s.now.AddDate(9, 0, 0))
	thief.Roles["timestamp"].Expire(s.now.AddDate(9, 0, 0))
	thief.PublishTimestamp()
	s.take(3)
	s.repo.Rotate(func() { s.repo.ReplaceKeys("timestamp"); s.repo.ReplaceKeys("snapshot") })
	s.repo.AddRelease("targets", 4, nil)
	s.repo.Publish()
	s.newest = 4
	s.mirror = s.repo
	s.take(4)
	s.mirror = thief
	s.copyRoots(thief)
	return []error{s.h.Threshold}
}

func freeze(s *stage) []error {
	s.mirror = s.seen
	return s.h.Expired
}

func freezeByKey(s *stage) []error {
	r := s.seen.Copy()
	timestamp := parseSigned(r.read("metadata/timestamp.json"))["signed"].(Object)
	timestamp["version"], timestamp["expires"] = 50, s.now.AddDate(1, 0, 0).Format(time.RFC3339)
	r.Write("metadata/timestamp.json", sign(timestamp, []TUFKey{s.steal("timestamp", 0)}))
	s.mirror = r
	// A publisher gives the timestamp a new key when one was stolen.
	s.repo.Rotate(func() { s.repo.ReplaceKeys("timestamp") })
	s.repo.Publish()
	return s.h.Expired
}

func loginPage(s *stage) []error {
	page := []byte("<html><body>Please log in to the guest network</body></html>")
	must(filepath.WalkDir(s.mirror.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "root.json") {
			return err
		}
		return os.WriteFile(path, page, 0o600)
	}))
	s.answer("", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) })
	return []error{s.h.Untrusted}
}

func rolesSwapped(s *stage) []error {
	names := []string{"metadata/timestamp.json", s.repo.RoleFile("snapshot", s.repo.Roles["snapshot"].Version())}
	a, b := s.mirror.read(names[0]), s.mirror.read(names[1])
	s.mirror.Write(names[0], b)
	s.mirror.Write(names[1], a)
	return []error{s.h.Untrusted}
}

func anotherRepository(s *stage) []error {
	s.mirror = NewTUFRepo(s.t, s.now)
	s.mirror.AddRelease("targets", 9, nil)
	s.mirror.Publish()
	return []error{s.h.Threshold}
}

func mixed(role string) func(s *stage) []error {
	return func(s *stage) []error {
		now := s.repo.Roles[role].Version()
		s.mirror.Write(s.repo.RoleFile(role, now), s.mirror.read(s.repo.RoleFile(role, now-1)))
		return []error{s.h.Untrusted}
	}
}

func mixedDocument(s *stage) []error {
	s.mirror.Write(s.document("release"), s.mirror.read(s.documentOf(s.repo, "release", 2)))
	return []error{s.h.Untrusted}
}

// rollBack: a device that has seen nothing has the time alone to tell.
func rollBack(s *stage) []error {
	s.mirror = s.old
	if s.warm {
		return []error{s.h.Rollback}
	}
	return s.h.Expired
}

func rollBackByKey(s *stage) []error {
	r := s.old.Copy()
	timestamp := parseSigned(r.read("metadata/timestamp.json"))["signed"].(Object)
	timestamp["version"], timestamp["expires"] = 50, s.now.AddDate(1, 0, 0).Format(time.RFC3339)
	r.Write("metadata/timestamp.json", sign(timestamp, []TUFKey{s.steal("timestamp", 0)}))
	s.mirror = r
	s.repo.Rotate(func() { s.repo.ReplaceKeys("timestamp") })
	s.repo.Publish()
	if s.warm {
		return []error{s.h.Rollback}
	}
	return s.h.Expired
}

func oneTargetsKey(s *stage) []error {
	stolen := map[string][]TUFKey{}
	for _, role := range []string{"timestamp", "snapshot", "targets"} {
		stolen[role] = []TUFKey{s.steal(role, 0)}
	}
	s.mirror = s.thief(stolen)
	// With the online keys lost, a publisher gives them new ones.
	s.repo.Rotate(func() { s.repo.ReplaceKeys("timestamp"); s.repo.ReplaceKeys("snapshot") })
	s.repo.Publish()
	return []error{s.h.Threshold}
}

func oneRootKey(s *stage) []error {
	own := NewTUFRepo(s.t, s.now)
	own.Roles["root"].Keys = append(own.Roles["root"].Keys, s.steal("root", 0))
	s.mirror.Write("metadata/2.root.json", own.PublishRoot())
	return []error{s.h.Threshold}
}

func otherHardware(s *stage) []error {
	r := s.mirror
	s.repo.AddRelease("targets", 4, func(r *release.Release) { r.Hardware = []string{"rev-z"} })
	s.repo.Publish()
	r.Dir = s.repo.Copy().Dir
	s.repo.AddRelease("targets", 5, nil)
	s.repo.Publish()
	s.newest = 5
	return []error{ota.ErrHardware}
}

// otherProduct: somebody who may sign made a mistake.
func otherProduct(s *stage) []error {
	other, err := s.repo.AddRelease("targets", 4, func(r *release.Release) { r.Product = "gateway" }).Encode()
	must(err)
	custom := Object{"kind": "release", "product": tufDevice.Product, "variant": tufDevice.Variant, "seq": 4, "hardware": []string{"rev-a", "rev-b"}}
	s.repo.AddTarget("targets", "releases/kiosk/arm/4.json", other, Object{"pawl": custom})
	s.repo.Publish()
	s.mirror = s.repo.Copy()
	s.repo.AddRelease("targets", 5, nil)
	s.repo.Publish()
	s.newest = 5
	return []error{s.h.Untrusted}
}

// eavesdrop: online, somebody with a certificate of their own is told nothing;
// a medium is read and not written to.
func eavesdrop(s *stage) []error {
	if s.online {
		spy := newSpy(s.t)
		s.url = spy.url
		s.t.Cleanup(func() {
			if heard := spy.secrets(); heard != "" {
				s.t.Errorf("the device told a stranger %q", heard)
			}
		})
		return []error{s.h.Unavailable}
	}
	before := listing(s.mirror.Dir)
	dir := s.mirror.Dir
	s.t.Cleanup(func() {
		if after := listing(dir); after != before {
			s.t.Errorf("the medium was written to: %s, and was %s", after, before)
		}
	})
	s.nothing = true
	return nil
}

// listing names all files below dir, with their sizes and times.
func listing(dir string) string {
	var b strings.Builder
	must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			b.WriteString(path + " " + info.ModTime().String() + "\n")
		}
		return err
	}))
	return b.String()
}

func dropAll(s *stage) []error {
	s.answer("", hangUp)
	if !s.online {
		s.mirror.Dir += "-is-away"
	}
	return []error{s.h.Unavailable}
}

func dropDocuments(s *stage) []error {
	s.answer("targets/", hangUp)
	if !s.online {
		must(os.RemoveAll(filepath.Join(s.mirror.Dir, "targets")))
	}
	return []error{s.h.Unavailable}
}

// hangUp ends the connection without an answer.
func hangUp(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	must(err)
	_ = conn.Close()
}

// trickle gives a byte now and then; in a folder there is a pipe that nobody
// writes to.
func trickle(prefix string) func(s *stage) []error {
	return func(s *stage) []error {
		s.answer(prefix, func(w http.ResponseWriter, r *http.Request) {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				_, err := w.Write([]byte(" "))
				_ = http.NewResponseController(w).Flush()
				if err != nil {
					return
				}
				select {
				case <-tick.C:
				case <-r.Context().Done():
					return
				}
			}
		})
		s.pipe(prefix)
		return []error{s.h.Unavailable}
	}
}

func stall(prefix string) func(s *stage) []error {
	return func(s *stage) []error {
		s.answer(prefix, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		s.pipe(prefix)
		return []error{s.h.Unavailable}
	}
}

func (s *stage) pipe(prefix string) {
	if s.online {
		return
	}
	if strings.HasPrefix(prefix, "targets/") {
		prefix = s.document("release")
	}
	file := filepath.Join(s.mirror.Dir, prefix)
	must(os.Remove(file))
	must(syscall.Mkfifo(file, 0o600))
}

// partialTries leaves each file out in turn, and cuts it off in its middle.
func partialTries() (tries []try) {
	for _, name := range []string{"metadata/timestamp.json", "metadata/4.snapshot.json", "metadata/4.targets.json", "release", "locator"} {
		file := func(s *stage) string {
			if strings.HasPrefix(name, "metadata/") {
				return name
			}
			return s.document(name)
		}
		short := strings.TrimSuffix(filepath.Base(name), ".json")
		tries = append(tries, try{"without " + short, func(s *stage) []error {
			must(os.Remove(filepath.Join(s.mirror.Dir, file(s))))
			return []error{s.h.Unavailable}
		}}, try{"half of " + short, func(s *stage) []error {
			data := s.mirror.read(file(s))
			s.mirror.Write(file(s), data[:len(data)/2])
			return []error{s.h.Untrusted}
		}})
	}
	return tries
}
