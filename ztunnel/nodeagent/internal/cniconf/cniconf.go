// Package cniconf adds an entry to a CNI configuration list, and takes it out
// again, as text: everything else in the file stays byte for byte as it was, so
// that Without(With(x)) is x.
//
// It reads and writes no files. Lists are checked with the library that container
// runtimes use, so that what is accepted here works there.
package cniconf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"
)

// sourceKey marks a list that Convert made, and names the file that it was made
// of. Runtimes ignore it.
const sourceKey = "ambit-mesh.io/converted-from"

// minVersion is the oldest version of the specification that chains plugins as
// ours needs it.
const minVersion = "0.3.0"

// span is an element of the list of plugins, from its first byte to the one after
// its last.
type span struct {
	start, end int
	kind       string // its type
}

// With gives the list with the entry: in the place of an entry of its type, or
// after the last one. changed is false if it is there already.
func With(list, entry []byte) (out []byte, changed bool, err error) {
	kind, err := kindOf(entry)
	if err != nil {
		return nil, false, fmt.Errorf("entry: %w", err)
	}
	elements, err := scan(list)
	if err != nil {
		return nil, false, err
	}
	var mine []span
	for _, e := range elements {
		if e.kind == kind {
			mine = append(mine, e)
		}
	}
	switch {
	case len(mine) == len(elements):
		return nil, false, fmt.Errorf("plugins: holds nothing but %s, which works behind another plugin only", kind)
	case len(mine) == 1 && mine[0] != elements[0] && same(list[mine[0].start:mine[0].end], entry):
		return list, false, nil
	case len(mine) > 0:
		if list, _, err = Without(list, kind); err != nil {
			return nil, false, err
		}
		if elements, err = scan(list); err != nil {
			return nil, false, err
		}
	}
	end := elements[len(elements)-1].end
	return bytes.Join([][]byte{list[:end], []byte(","), entry, list[end:]}, nil), true, nil
}

// Without gives the list without entries of a type.
func Without(list []byte, kind string) (out []byte, changed bool, err error) {
	elements, err := scan(list)
	if err != nil {
		return nil, false, err
	}
	out = list
	for i := len(elements) - 1; i >= 0; i-- {
		e := elements[i]
		if e.kind != kind {
			continue
		}
		changed = true
		switch {
		case i > 0:
			out = bytes.Join([][]byte{out[:elements[i-1].end], out[e.end:]}, nil)
		case len(elements) > 1:
			// The first: with the comma after it.
			out = bytes.Join([][]byte{out[:e.start], out[elements[1].start:]}, nil)
		default:
			return nil, false, fmt.Errorf("plugins: holds nothing but %s", kind)
		}
		if elements, err = scan(out); err != nil {
			return nil, false, err
		}
	}
	return out, changed, nil
}

// Has tells whether a list has an entry of a type.
func Has(list []byte, kind string) bool {
	elements, err := scan(list)
	if err != nil {
		return false
	}
	for _, e := range elements {
		if e.kind == kind {
			return true
		}
	}
	return false
}

// CheckSingle tells what is wrong with a configuration of a single plugin.
func CheckSingle(conf []byte) error {
	c, err := libcni.NetworkPluginConfFromBytes(conf)
	if err != nil {
		return err
	}
	if c.Network.Name == "" {
		return errors.New("name: must be set")
	}
	return checkVersion(c.Network.CNIVersion)
}

// Convert makes a list of the configuration of a single plugin, with the entry.
// from is the name of its file.
func Convert(conf, entry []byte, from string) ([]byte, error) {
	if err := CheckSingle(conf); err != nil {
		return nil, err
	}
	c, err := libcni.NetworkPluginConfFromBytes(conf)
	if err != nil {
		return nil, err
	}
	type list struct {
		Version string            `json:"cniVersion"`
		Name    string            `json:"name"`
		From    string            `json:"ambit-mesh.io/converted-from"`
		Plugins []json.RawMessage `json:"plugins"`
	}
	out, err := json.MarshalIndent(list{c.Network.CNIVersion, c.Network.Name, from, []json.RawMessage{conf, entry}}, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(out, '\n'), nil
}

// ConvertedFrom names the file of which Convert made a list, empty for others.
func ConvertedFrom(list []byte) string {
	var top map[string]json.RawMessage
	if json.Unmarshal(list, &top) != nil {
		return ""
	}
	var from string
	if json.Unmarshal(top[sourceKey], &from) != nil {
		return ""
	}
	return from
}

// checkVersion wants a version with chained plugins.
func checkVersion(v string) error {
	if v == "" {
		v = "0.1.0" // as the specification has it
	}
	ok, err := version.GreaterThanOrEqualTo(v, minVersion)
	if err != nil {
		return fmt.Errorf("cniVersion %q: %w", v, err)
	}
	if !ok {
		return fmt.Errorf("cniVersion %q: has no chained plugins; the CNI's configuration must say %s or later", v, minVersion)
	}
	return nil
}

func kindOf(plugin []byte) (string, error) {
	var p struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(plugin, &p); err != nil {
		return "", err
	}
	if p.Type == "" {
		return "", errors.New("type: must be set")
	}
	return p.Type, nil
}

// same compares what two pieces of JSON say.
func same(a, b []byte) bool {
	var va, vb any
	return json.Unmarshal(a, &va) == nil && json.Unmarshal(b, &vb) == nil && reflect.DeepEqual(va, vb)
}

// scan checks a list and gives its plugins.
func scan(list []byte) ([]span, error) {
	parsed, err := libcni.NetworkConfFromBytes(list)
	if err != nil {
		return nil, err
	}
	if err := checkVersion(parsed.CNIVersion); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(list))
	if _, err := dec.Token(); err != nil { // {, the library has seen to that
		return nil, err
	}
	var elements []span
	found := false
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		if key != "plugins" {
			var skip json.RawMessage
			if err := dec.Decode(&skip); err != nil {
				return nil, err
			}
			continue
		}
		if found {
			return nil, errors.New("plugins: is there twice")
		}
		found = true
		if elements, err = scanPlugins(dec); err != nil {
			return nil, err
		}
	}
	if !found {
		return nil, errors.New("plugins: is missing; a list that takes its plugins from a directory cannot be extended")
	}
	return elements, nil
}

func scanPlugins(dec *json.Decoder) ([]span, error) {
	if _, err := dec.Token(); err != nil { // [
		return nil, err
	}
	var elements []span
	for dec.More() {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, err
		}
		kind, err := kindOf(raw)
		if err != nil {
			return nil, fmt.Errorf("plugins[%d]: %w", len(elements), err)
		}
		end := int(dec.InputOffset())
		elements = append(elements, span{start: end - len(raw), end: end, kind: kind})
	}
	_, err := dec.Token() // ]
	return elements, err
}
