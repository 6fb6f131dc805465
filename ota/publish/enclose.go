package publish

import (
	"encoding/base64"
	"errors"
	"os"

	"github.com/pawl-ota/pawl/ota/release"
)

// enclose has the timestamp bring the documents of a release, and of its content
// what a device fetches that runs the one before, where that is little: all that is
// new, with the table, or what makes it of what the device has.
func (a *adding) enclose(docs []sealed, loc *release.Locator, table []byte) error {
	pack, from, to := a.stretch(loc)
	if n := a.newPack.Size; 0 < n && n <= release.MaxEnclosed {
		docs = append(docs, sealed{release.TableName(loc.Table.Digest), table})
		pack, from, to = a.newPack, 0, n
	}
	for _, d := range docs {
		a.edit.enclosed = append(a.edit.enclosed, release.Enclosed{Name: d.name, Data: d.data})
	}
	if to <= from || to-from > release.MaxEnclosed {
		return nil
	}
	f, err := os.Open(a.r.disk.path(pack.Name))
	if err != nil {
		return err
	}
	data := make([]byte, to-from)
	_, err = f.ReadAt(data, from)
	a.edit.enclosed = append(a.edit.enclosed, release.Enclosed{Name: pack.Name, Offset: from, Data: data})
	return errors.Join(err, f.Close())
}

// stretch is from where to where in the new pack all lies that makes the components
// of those of the release before.
func (a *adding) stretch(loc *release.Locator) (pack release.Pack, from, to int64) {
	last := map[release.Digest]bool{}
	for _, p := range a.parts {
		if len(p.from) > 0 {
			last[p.from[0].index.Digest] = true
		}
	}
	add := func(n int, offset, length int64) {
		if length > 0 && to == 0 {
			pack, from, to = loc.Packs[n], offset, offset+length
		}
		from, to = min(from, offset), max(to, offset+length)
	}
	for _, p := range loc.Patches {
		if last[p.From] {
			add(p.Pack, p.Offset, p.Length)
		}
	}
	for _, d := range loc.Deltas {
		if last[d.From] {
			add(d.Pack, d.Offset, d.Length)
			add(d.Pack, d.Start, d.Groups)
		}
	}
	return pack, from, to
}

// stamp is what a timestamp holds beside what all of them do: when it was issued, and
// the files that it encloses, new metadata first.
func (e *edit) stamp(issued string, metadata []sealed) (map[string]any, error) {
	fields := map[string]any{"issued": issued}
	if len(e.enclosed) == 0 {
		return fields, nil
	}
	var list []release.Enclosed
	for _, f := range metadata {
		list = append(list, release.Enclosed{Name: f.name, Data: f.data})
	}
	stored, err := release.EncodeEnclosed(append(list, e.enclosed...))
	if stored != nil {
		fields["enclosed"] = base64.StdEncoding.EncodeToString(stored)
	}
	return fields, err
}
