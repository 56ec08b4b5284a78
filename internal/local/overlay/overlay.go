// Package overlay keeps a directory of manifests, one file an object, for what
// the local mesh knows and the user's manifests do not say: nodes, pods with
// their addresses, virtual service addresses, endpoints. Readers that watch the
// directory see each object old or new and never half.
package overlay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ambit-mesh/ambit/internal/manifest"
)

// Dir is the directory. It is not safe for concurrent use.
type Dir struct {
	path    string
	written map[string][]byte // by file name
}

// Open makes the directory.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("overlay: %w", err)
	}
	return &Dir{path: path, written: make(map[string][]byte)}, nil
}

// Write makes the directory hold exactly the given objects. Files of objects
// that did not change are not touched.
func (d *Dir) Write(objects []manifest.Resource) error {
	var errs []error
	wanted := make(map[string]bool, len(objects))
	for _, o := range objects {
		name, raw, err := encode(o)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		wanted[name] = true
		if bytes.Equal(d.written[name], raw) {
			continue
		}
		if err := d.replace(name, raw); err != nil {
			errs = append(errs, err)
			continue
		}
		d.written[name] = raw
	}
	for name := range d.written {
		if wanted[name] {
			continue
		}
		if err := os.Remove(filepath.Join(d.path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		delete(d.written, name)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("overlay: %w", err)
	}
	return nil
}

func encode(o manifest.Resource) (name string, raw []byte, err error) {
	gvk := o.GetObjectKind().GroupVersionKind()
	if gvk.Kind == "" {
		return "", nil, fmt.Errorf("object %s/%s has no kind", o.GetNamespace(), o.GetName())
	}
	raw, err = json.Marshal(o)
	if err != nil {
		return "", nil, fmt.Errorf("%s %s: %w", gvk.Kind, o.GetName(), err)
	}
	return strings.ToLower(gvk.Kind) + "_" + o.GetNamespace() + "_" + o.GetName() + ".json", raw, nil
}

// replace writes a new file and moves it over the old one. Names that begin
// with a dot are not read as manifests.
func (d *Dir) replace(name string, raw []byte) error {
	temp := filepath.Join(d.path, "."+name+".new")
	if err := os.WriteFile(temp, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(d.path, name))
}
