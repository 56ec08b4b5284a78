package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
)

// Load reads directories once. The error is for a directory that is not there;
// what is wrong inside is among the batch's problems. The batch has no deletes.
func Load(dirs ...string) (Batch, error) {
	v, err := open(dirs, false, NewScheme())
	if err != nil {
		return Batch{}, err
	}
	b, _ := v.settle(v.scanAll(func(string) error { return nil }))
	return b, nil
}

// open checks that the directories exist and gives their unread overlay.
func open(dirs []string, flat bool, scheme *runtime.Scheme) (*overlay, error) {
	layers := make([]*layer, len(dirs))
	for i, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil {
			return nil, fmt.Errorf("manifest directory %s: %s: create it first", dir, reason(err))
		}
		if !info.IsDir() {
			return nil, fmt.Errorf("manifest directory %s: not a directory", dir)
		}
		root := filepath.Clean(dir)
		for _, l := range layers[:i] {
			if root == l.root || !flat && (inside(l.root, root) || inside(root, l.root)) {
				return nil, fmt.Errorf("manifest directories %s and %s: one holds the other: an object cannot overlay itself", l.root, root)
			}
		}
		layers[i] = &layer{root: root, flat: flat, scheme: scheme, files: make(map[string]*file)}
	}
	return newOverlay(layers), nil
}

// inside says whether path is root or below it. Both are clean.
func inside(root, path string) bool {
	rel, err := filepath.Rel(root, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// scanAll scans every layer and gives the touched keys.
func (v *overlay) scanAll(watch func(string) error) []Key {
	var touched []Key
	for i, l := range v.layers {
		touched = append(touched, v.replace(i, l.scan(watch))...)
	}
	return touched
}
