package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/pawl-ota/pawl/ota"
	"github.com/pawl-ota/pawl/ota/compose"
	"github.com/pawl-ota/pawl/ota/durable"
)

// filesFolder holds the configs and secrets that containers mount, each once for
// every owner and mode that it is wanted with.
const filesFolder = "files"

func fileName(app *compose.App, m compose.FileMount) string {
	f, _ := fileOf(app, m)
	return fmt.Sprintf("%s-%d-%d-%04o", f.Blob.Digest, m.UID, m.GID, m.Mode)
}

func fileOf(app *compose.App, m compose.FileMount) (compose.File, bool) {
	i := slices.IndexFunc(app.Files, func(f compose.File) bool { return f.Kind == m.Kind && f.Name == m.Name })
	if i < 0 {
		return compose.File{}, false
	}
	return app.Files[i], true
}

func (c *Compose) filePath(app *compose.App, m compose.FileMount) string {
	return filepath.Join(c.opts.Dir, filesFolder, fileName(app, m))
}

// writeFiles writes the configs and secrets of an app.
func (c *Compose) writeFiles(ctx context.Context, app *compose.App, content ota.Content) error {
	for _, s := range app.Services {
		for _, m := range s.Files {
			f, ok := fileOf(app, m)
			if !ok {
				return fmt.Errorf("service %s: %s %.80q is not in the document", s.Name, m.Kind, m.Name)
			}
			data, err := readBlob(ctx, f.Blob, compose.MaxFile, content)
			if err != nil {
				return fmt.Errorf("%s %.80q: %w", m.Kind, m.Name, err)
			}
			if err := writeMounted(c.filePath(app, m), data, m); err != nil {
				return err
			}
		}
	}
	return nil
}

func writeMounted(path string, data []byte, m compose.FileMount) error {
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
		if now, err := os.ReadFile(path); err == nil && string(now) == string(data) && info.Mode().Perm() == fs.FileMode(m.Mode) {
			return nil // containers mount this very file
		}
	}
	if err := durable.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := durable.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	if err := os.Chown(path, int(m.UID), int(m.GID)); err != nil && os.Geteuid() == 0 {
		return err
	}
	if err := os.Chmod(path, fs.FileMode(m.Mode)); err != nil {
		return err
	}
	return durable.SyncFile(path)
}
