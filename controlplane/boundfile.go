package controlplane

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/internal/statefile"
)

const (
	boundName = "waypoints.json"
	maxBound  = 16 << 20
)

// boundFile has the waypoints that namespaces' labels have bound, as a JSON list of
// <namespace>/<name>. It changes when one is ready for the first time, and is
// written whole.
type boundFile struct{ path string }

// openBound reads the file; one that does not exist is an empty list.
func openBound(path string) (*boundFile, []types.NamespacedName, error) {
	f := &boundFile{path}
	data, err := statefile.ReadPrivate(path, maxBound)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	list, err := parseBound(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s is damaged: %w; restore it from a backup, or delete it: connections to services of namespaces that name a waypoint then go without it until it is ready", path, err)
	}
	return f, list, nil
}

func parseBound(data []byte) ([]types.NamespacedName, error) {
	var names []string
	if err := json.Unmarshal(data, &names); err != nil {
		return nil, err
	}
	list := make([]types.NamespacedName, 0, len(names))
	for _, n := range names {
		namespace, name, ok := strings.Cut(n, "/")
		if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
			return nil, fmt.Errorf("%q is not <namespace>/<name>", n)
		}
		list = append(list, types.NamespacedName{Namespace: namespace, Name: name})
	}
	return list, nil
}

// save writes the file. It is on disk when save returns.
func (f *boundFile) save(list []types.NamespacedName) error {
	names := make([]string, 0, len(list))
	for _, n := range list {
		names = append(names, n.String())
	}
	data, err := json.Marshal(names)
	if err != nil {
		return err
	}
	return statefile.Write(f.path, data, 0o600)
}
