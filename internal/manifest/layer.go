package manifest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
)

// maxFileSize bounds what is read into memory at once.
const maxFileSize = 64 << 20

// layer is the state of one directory.
type layer struct {
	root   string
	flat   bool
	scheme *runtime.Scheme
	files  map[string]*file // by path
	// problem is set while root cannot be read.
	problem *Problem
}

// file is the last good state of one file and what is wrong with it now.
type file struct {
	stamp   stamp
	content [sha256.Size]byte
	// docs remembers the outcome of each document by the hash of its text, so
	// that an edit of one document of a big file parses that one only.
	docs map[[sha256.Size]byte]parsed
	// objects are those of the current content; kept are earlier ones that are
	// held on to while there are problems.
	objects, kept []Object
	problems      []Problem
}

// stamp tells that a file may have changed.
type stamp struct {
	size, mtime, ctime int64
	inode              uint64
}

// parsed is the outcome of one document, with lines counted from 1.
type parsed struct {
	objects  []Object
	problems []Problem
}

// accepts says whether a file name is that of a manifest.
func accepts(name string) bool {
	if hidden(name) {
		return false
	}
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// hidden says whether a name is that of a dotfile or of an editor's temporary
// file (.x.swp, #x#, x~).
func hidden(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "#") || strings.HasSuffix(name, "~")
}

// touch names the definitions of one file that may have changed.
type touch struct {
	path string
	keys []Key
}

// scan brings the whole layer up to date. watch is called for every directory
// before it is listed.
func (l *layer) scan(watch func(dir string) error) []touch {
	paths, err := l.list(watch)
	if err != nil {
		// An unmounted or renamed root must not empty the mesh.
		l.problem = &Problem{
			Position: Position{File: l.root},
			Message:  "the directory cannot be read, its last objects stay: " + reason(err),
		}
		return nil
	}
	l.problem = nil
	var touched []touch
	for _, path := range paths {
		if keys := l.refresh(path, false); len(keys) > 0 {
			touched = append(touched, touch{path, keys})
		}
	}
	for path := range l.files {
		if _, found := slices.BinarySearch(paths, path); !found {
			touched = append(touched, touch{path, l.drop(path)})
		}
	}
	return touched
}

// list gives the paths of all manifests, sorted.
func (l *layer) list(watch func(dir string) error) ([]string, error) {
	var paths []string
	dirs := []string{l.root}
	for len(dirs) > 0 {
		dir := dirs[0]
		dirs = dirs[1:]
		err := watch(dir)
		var entries []os.DirEntry
		if err == nil {
			entries, err = os.ReadDir(dir)
		}
		if err != nil && dir != l.root && errors.Is(err, fs.ErrNotExist) {
			continue // deleted while listing
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			switch {
			case e.IsDir():
				if !l.flat && !hidden(e.Name()) {
					dirs = append(dirs, path)
				}
			case accepts(e.Name()):
				paths = append(paths, path)
			}
		}
	}
	slices.Sort(paths)
	return paths, nil
}

// refresh brings one file up to date and gives the keys whose definition may
// have changed. An unforced refresh trusts the file's stamp.
func (l *layer) refresh(path string, force bool) []Key {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l.drop(path)
	}
	f := l.files[path]
	if f == nil {
		f = &file{}
		l.files[path] = f
	}
	if err != nil {
		return l.broken(path, f, "cannot be read: "+reason(err))
	}
	switch {
	case !info.Mode().IsRegular():
		return l.broken(path, f, "is not a regular file: replace or remove it")
	case info.Size() > maxFileSize:
		return l.broken(path, f, fmt.Sprintf("is larger than %d MiB: split it", maxFileSize>>20))
	}
	st := stampOf(info)
	if !force && f.stamp == st {
		return nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return l.broken(path, f, "cannot be read: "+reason(err))
	}
	f.stamp = st
	sum := sha256.Sum256(content)
	if f.content == sum {
		return nil
	}
	f.content = sum
	if len(content) == 0 {
		return l.broken(path, f, "is empty: remove the file to delete its objects")
	}
	return l.parse(path, f, content)
}

// broken records why nothing of a file can be used; its objects stay.
func (l *layer) broken(path string, f *file, message string) []Key {
	f.stamp, f.content = stamp{}, [sha256.Size]byte{}
	f.problems = []Problem{{Position: Position{File: path}, Message: message + " (its last good objects stay)"}}
	return nil
}

func (l *layer) parse(path string, f *file, content []byte) []Key {
	before := slices.Concat(f.objects, f.kept)
	objects, problems, unreadable := f.decode(l.scheme, path, content)
	f.problems = problems
	if unreadable {
		return nil
	}
	f.objects, f.kept = objects, nil
	if len(problems) > 0 {
		defined := map[Key]bool{}
		for _, o := range objects {
			defined[o.Key()] = true
		}
		for _, o := range before {
			if !defined[o.Key()] {
				f.kept = append(f.kept, o)
			}
		}
	}
	return differing(before, slices.Concat(f.objects, f.kept))
}

// differing gives the keys of the objects that are in one of two lists only.
func differing(before, after []Object) []Key {
	only := make(map[Object]bool, len(before))
	for _, o := range before {
		only[o] = true
	}
	for _, o := range after {
		if only[o] {
			delete(only, o)
		} else {
			only[o] = true
		}
	}
	keys := make([]Key, 0, len(only))
	for o := range only {
		keys = append(keys, o.Key())
	}
	return keys
}

// decode parses the documents of a file that were not there before. unreadable
// means that the text of the file is broken as such.
func (f *file) decode(scheme *runtime.Scheme, path string, content []byte) (objects []Object, problems []Problem, unreadable bool) {
	if filepath.Ext(path) == ".json" {
		objects, problems = Parse(scheme, path, content)
		return objects, problems, len(objects) == 0 && len(problems) > 0
	}
	docs := make(map[[sha256.Size]byte]parsed)
	for _, doc := range splitYAML(string(content)) {
		sum := sha256.Sum256([]byte(doc.text))
		p, known := f.docs[sum]
		if !known {
			d := decoder{scheme: scheme, file: path}
			// A text of its own does not hold on to that of the whole file.
			unreadable = d.yaml(document{strings.Clone(doc.text), 1}) || unreadable
			p = parsed{d.objects, d.problems}
		}
		if len(p.problems) == 0 {
			docs[sum] = p
		}
		for _, o := range p.objects {
			o.Source.Line += doc.line - 1
			objects = append(objects, o)
		}
		for _, pr := range p.problems {
			pr.Position.Line += doc.line - 1
			problems = append(problems, pr)
		}
	}
	if !unreadable {
		f.docs = docs
	}
	return objects, problems, unreadable
}

// drop forgets a file that is gone.
func (l *layer) drop(path string) []Key {
	f := l.files[path]
	if f == nil {
		return nil
	}
	delete(l.files, path)
	return keysOf(slices.Concat(f.objects, f.kept))
}

func keysOf(objects []Object) []Key {
	keys := make([]Key, len(objects))
	for i, o := range objects {
		keys[i] = o.Key()
	}
	return keys
}

// reason drops the path from an error, which the position already names.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
