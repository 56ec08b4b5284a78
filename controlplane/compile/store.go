package compile

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// store holds the output and which object each part of it comes from.
type store struct {
	slots map[Key]slot
	// owned has the keys that an object gave, so that those that it no longer
	// gives can be removed.
	owned    map[graph.Key][]Key
	findings map[graph.Key][]Finding

	// Of the batch under way:
	before map[Key]*Resource // what each touched key was, nil if nothing
	fresh  []Finding
}

// slot is a resource and the object that gave it last.
type slot struct {
	resource *Resource
	owner    graph.Key
}

func newStore() store {
	return store{
		slots:    make(map[Key]slot),
		owned:    make(map[graph.Key][]Key),
		findings: make(map[graph.Key][]Finding),
		before:   make(map[Key]*Resource),
	}
}

// put replaces everything that an object gives.
func (s *store) put(owner graph.Key, resources []*Resource, findings []Finding) {
	keys := make([]Key, 0, len(resources))
	for _, r := range resources {
		keys = append(keys, r.Key)
	}
	for _, k := range s.owned[owner] {
		// Another object may have taken the key over in this batch.
		if !slices.Contains(keys, k) && s.slots[k].owner == owner {
			s.touch(k)
			delete(s.slots, k)
		}
	}
	for _, r := range resources {
		s.touch(r.Key)
		s.slots[r.Key] = slot{r, owner}
	}
	if len(keys) == 0 {
		delete(s.owned, owner)
	} else {
		s.owned[owner] = keys
	}
	s.report(owner, findings)
}

// touch remembers what a key was before the batch.
func (s *store) touch(k Key) {
	if _, touched := s.before[k]; !touched {
		s.before[k] = s.slots[k].resource
	}
}

func (s *store) report(owner graph.Key, findings []Finding) {
	old := s.findings[owner]
	for _, f := range findings {
		if !slices.Contains(old, f) {
			s.fresh = append(s.fresh, f)
		}
	}
	if len(findings) == 0 {
		delete(s.findings, owner)
		return
	}
	s.findings[owner] = findings
}

// finish ends the batch and gives what it changed, sorted by key.
func (s *store) finish() (Delta, []Finding) {
	var d Delta
	for k, old := range s.before {
		now := s.slots[k]
		r := now.resource
		switch {
		case r == nil && old != nil:
			d.Removed = append(d.Removed, k)
		case r != nil && old != nil && same(old, r):
			// Clients of an unchanged resource keep the very same one.
			s.slots[k] = slot{old, now.owner}
		case r != nil:
			d.Updated = append(d.Updated, r)
		}
	}
	slices.SortFunc(d.Updated, func(a, b *Resource) int { return a.Key.compare(b.Key) })
	slices.SortFunc(d.Removed, Key.compare)
	fresh := s.fresh
	s.before, s.fresh = make(map[Key]*Resource), nil
	return d, fresh
}

func same(a, b *Resource) bool {
	return a.Version == b.Version && a.Node == b.Node && a.Waypoint == b.Waypoint && slices.Equal(a.Aliases, b.Aliases)
}

func (k Key) compare(o Key) int {
	if c := strings.Compare(k.Type, o.Type); c != 0 {
		return c
	}
	return strings.Compare(k.Name, o.Name)
}

// resource makes a Resource of a body.
func resource(typeURL, name string, body proto.Message) *Resource {
	return &Resource{Key: Key{typeURL, name}, Version: versionOf(body), Body: body, Related: noRelated}
}

func noRelated() []Key { return nil }

// versionOf hashes a body. Deterministic marshalling holds within one build of
// the program; after an upgrade at worst everything is sent once more.
func versionOf(body proto.Message) string {
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(body)
	if err != nil {
		// Strings come from valid UTF-8 objects, which is all that can fail.
		text = []byte(err.Error())
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}
