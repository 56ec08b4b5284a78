package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/ambit-mesh/ambit/ztunnel/nodeagent/internal/cniconf"
)

const (
	// listSuffix is added to the name of a file that is converted: the list then
	// stands where the file stood in the order of names.
	listSuffix = ".conflist"
	// savedSuffix is added to the name of the file itself.
	savedSuffix = ".ambit-saved"
)

// outcome is what one look at the directory found and did.
type outcome struct {
	// primary is the file that has the entry, empty if there is none.
	primary string
	// problems are files that cannot be used, and why.
	problems map[string]string
	// changed are the files that were changed.
	changed []string
}

// place puts the entry into the first valid file and takes it out of all others.
func (i *Installer) place() (outcome, error) {
	o := outcome{problems: make(map[string]string)}
	names, err := configurations(i.cfg.ConfDir)
	if err != nil {
		return o, err
	}
	for _, name := range names {
		if o.primary != "" {
			// Runtimes do not get this far; only what is ours here matters.
			if err := i.takeOut(name, &o); err != nil {
				return o, err
			}
			continue
		}
		file, err := i.putIn(name, &o)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, errChanged):
			return o, fmt.Errorf("%s: %w", name, err)
		case err != nil:
			o.problems[name] = err.Error()
		default:
			o.primary = file
		}
	}
	return o, nil
}

// configurations lists what runtimes look at, in their order.
func configurations(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) && !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// putIn gives the name of the file that has the entry then.
func (i *Installer) putIn(name string, o *outcome) (string, error) {
	path, err := i.resolve(name)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if filepath.Ext(name) != ".conflist" {
		return i.convert(name, path, text, o)
	}
	out, changed, err := cniconf.With(text, i.cfg.Entry)
	if err != nil || !changed {
		return name, err
	}
	if err := replace(path, text, out); err != nil {
		return "", err
	}
	o.changed = append(o.changed, name)
	return name, nil
}

// convert makes a list of a file of a single plugin. The list is there before the
// file is out of the way, so that at no moment there is none.
func (i *Installer) convert(name, path string, text []byte, o *outcome) (string, error) {
	list, err := cniconf.Convert(text, i.cfg.Entry, name)
	if err != nil {
		return "", err
	}
	to := filepath.Join(i.cfg.ConfDir, name+listSuffix)
	old, err := os.ReadFile(to)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		old = nil
	case err != nil:
		return "", err
	case cniconf.ConvertedFrom(old) != name:
		return "", fmt.Errorf("cannot be made a list: %s is in the way; remove it", to)
	}
	if err := replace(to, old, list); err != nil {
		return "", err
	}
	if err := os.Rename(path, filepath.Join(i.cfg.ConfDir, name+savedSuffix)); err != nil {
		return "", err
	}
	o.changed = append(o.changed, name)
	return name + listSuffix, syncDir(i.cfg.ConfDir)
}

// takeOut brings a file back to what it was without the entry. What is not ours,
// or cannot be read, is left alone.
func (i *Installer) takeOut(name string, o *outcome) error {
	path, err := i.resolve(name)
	if err != nil {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	if from := cniconf.ConvertedFrom(text); from != "" && from+listSuffix == name {
		o.changed = append(o.changed, name)
		return i.restore(from, path)
	}
	out, changed, err := cniconf.Without(text, i.cfg.Type)
	if err != nil || !changed {
		return nil
	}
	o.changed = append(o.changed, name)
	return replace(path, text, out)
}

// restore undoes convert. A file of that name that its CNI wrote since is newer
// than ours.
func (i *Installer) restore(from, list string) error {
	saved, original := filepath.Join(i.cfg.ConfDir, from+savedSuffix), filepath.Join(i.cfg.ConfDir, from)
	if _, err := os.Lstat(original); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(saved, original); err != nil {
			return fmt.Errorf("%s is not as it was: %w", original, err)
		}
	} else if err := os.Remove(saved); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Remove(list); err != nil {
		return err
	}
	return syncDir(i.cfg.ConfDir)
}

// resolve gives the path to edit. A link that leads out of the directory leads to
// something that may not be what the node has there.
func (i *Installer) resolve(name string) (string, error) {
	path := filepath.Join(i.cfg.ConfDir, name)
	st, err := os.Lstat(path)
	if err != nil || st.Mode().IsRegular() {
		return path, err
	}
	dir, err := filepath.EvalSymlinks(i.cfg.ConfDir)
	if err != nil {
		return "", err
	}
	to, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	if st, err = os.Stat(to); err != nil {
		return "", err
	}
	if filepath.Dir(to) != dir || !st.Mode().IsRegular() {
		return "", fmt.Errorf("is a link to %s, which is no file of the same directory; put the file itself there", to)
	}
	return to, nil
}
