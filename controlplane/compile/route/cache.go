package route

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/compile/traffic"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

// Cache keeps the translations of the routes of one Service from one call of
// Translate to the next, so that an edit costs about what has changed. The zero
// value is ready for use. It is for one goroutine at a time.
//
// What becomes of a route is determined by the route, by a few properties of the
// Service (settings), and by what the translation asks the mesh about. All
// questions are noted with their answers: as long as each would be answered the
// same, the result is the same. Objects are never changed but replaced, so that
// an object is the same when its pointer is.
type Cache struct {
	// round counts the calls of Translate.
	round     uint64
	numbers   map[question]int
	questions []asked
	entries   map[entryKey]*entry
}

// settings are what a translation knows of its Service beside the mesh.
type settings struct {
	closed, signedIn string
	version          bool
}

type entryKey struct {
	route   graph.Key
	section string
}

// entry is a translation.
type entry struct {
	object   graph.Object
	settings settings
	// questions that were asked for it, by number, with the answers of made.
	questions []int
	made      uint64
	compiled  *compiled
	used      uint64
}

// asked is a question, the answer, and the rounds in which it was asked last and
// in which the answer became this one.
type asked struct {
	question
	answer
	last, since uint64
}

// begin starts a round.
func (c *Cache) begin() {
	if c.numbers == nil {
		c.numbers, c.entries = make(map[question]int), make(map[entryKey]*entry)
	}
	c.round++
}

// end forgets what was not used in the round.
func (c *Cache) end() {
	live := 0
	for k, e := range c.entries {
		if e.used != c.round {
			delete(c.entries, k)
			continue
		}
		live += len(e.questions)
	}
	// Questions outlive the routes that they were asked for. When most of them are
	// of that kind all is begun anew.
	if len(c.questions) > 1000+2*live {
		*c = Cache{}
	}
}

// find gives a translation that would come out the same now, or nil.
func (c *Cache) find(k entryKey, object graph.Object, s settings, mesh traffic.Mesh) *compiled {
	e := c.entries[k]
	if e == nil || e.object != object || e.settings != s {
		return nil
	}
	for _, n := range e.questions {
		if c.ask(n, mesh).since > e.made {
			return nil
		}
	}
	e.used = c.round
	return e.compiled
}

// ask gives a question with the answer of this round.
func (c *Cache) ask(n int, mesh traffic.Mesh) *asked {
	a := &c.questions[n]
	if a.last == c.round {
		return a
	}
	now := a.ask(mesh)
	if a.last == 0 || !now.same(a.answer) {
		a.answer, a.since = now, c.round
	}
	a.last = c.round
	return a
}

// record gives a mesh that notes what it is asked, and a function that keeps what
// has come of it.
func (c *Cache) record(mesh traffic.Mesh) (traffic.Mesh, func(entryKey, *entry)) {
	r := &recorder{cache: c, mesh: mesh, seen: make(map[int]struct{})}
	return r, func(k entryKey, e *entry) {
		for n := range r.seen {
			e.questions = append(e.questions, n)
		}
		slices.Sort(e.questions)
		e.made, e.used = c.round, c.round
		c.entries[k] = e
	}
}

// what is asked.
type what uint8

const (
	askService what = iota
	askServiceName
	askAttached
	askObject
	askBound
	askBoundIn
	askUsers
	askExternal
	askExternalBound
	askWaypoint
)

// question is a call of a method of traffic.Mesh.
type question struct {
	what what
	kind string
	key  graph.Key
}

// answer is what it gives.
type answer struct {
	object graph.Object
	list   []graph.Object
	text   string
	yes    bool
}

func (a answer) same(b answer) bool {
	return a.object == b.object && a.text == b.text && a.yes == b.yes && slices.Equal(a.list, b.list)
}

func (q question) ask(mesh traffic.Mesh) (a answer) {
	switch n := q.key.NamespacedName(); q.what {
	case askService:
		if s := mesh.Service(n); s != nil {
			a.object = s
		}
	case askServiceName:
		a.text = mesh.ServiceName(n)
	case askAttached:
		a.list = mesh.Attached(q.kind, q.key)
	case askObject:
		a.object = mesh.Object(q.key)
	case askBound:
		a.yes = mesh.Bound(n)
	case askBoundIn:
		a.yes = mesh.BoundIn(q.key.Name)
	case askUsers:
		a.list = mesh.Users(n)
	case askExternal:
		if s := mesh.External(n); s != nil {
			a.object = s
		}
	case askExternalBound:
		a.yes = mesh.ExternalBound(n)
	case askWaypoint:
		a.yes = mesh.Waypoint(n)
	}
	return a
}

// recorder is a mesh that notes the questions.
type recorder struct {
	cache *Cache
	mesh  traffic.Mesh
	seen  map[int]struct{}
}

var _ traffic.Mesh = (*recorder)(nil)

func (r *recorder) ask(q question) answer {
	n, known := r.cache.numbers[q]
	if !known {
		n = len(r.cache.questions)
		r.cache.numbers[q] = n
		r.cache.questions = append(r.cache.questions, asked{question: q})
	}
	r.seen[n] = struct{}{}
	return r.cache.ask(n, r.mesh).answer
}

func (r *recorder) Service(n types.NamespacedName) *corev1.Service {
	s, _ := r.ask(question{what: askService, key: graph.ServiceKey(n)}).object.(*corev1.Service)
	return s
}

func (r *recorder) ServiceName(n types.NamespacedName) string {
	return r.ask(question{what: askServiceName, key: graph.ServiceKey(n)}).text
}

func (r *recorder) Attached(kind string, target graph.Key) []graph.Object {
	return r.ask(question{what: askAttached, kind: kind, key: target}).list
}

func (r *recorder) Object(k graph.Key) graph.Object {
	return r.ask(question{what: askObject, key: k}).object
}

func (r *recorder) Waypoint(n types.NamespacedName) bool {
	return r.ask(question{what: askWaypoint, key: graph.GatewayKey(n)}).yes
}

func (r *recorder) Bound(n types.NamespacedName) bool {
	return r.ask(question{what: askBound, key: graph.ServiceKey(n)}).yes
}

func (r *recorder) BoundIn(namespace string) bool {
	return r.ask(question{what: askBoundIn, key: graph.NamespaceKey(namespace)}).yes
}

func (r *recorder) Users(n types.NamespacedName) []graph.Object {
	return r.ask(question{what: askUsers, key: graph.ServiceKey(n)}).list
}

func (r *recorder) External(n types.NamespacedName) *corev1.Service {
	s, _ := r.ask(question{what: askExternal, key: graph.ExternalKey(n)}).object.(*corev1.Service)
	return s
}

func (r *recorder) ExternalBound(n types.NamespacedName) bool {
	return r.ask(question{what: askExternalBound, key: graph.ExternalKey(n)}).yes
}
