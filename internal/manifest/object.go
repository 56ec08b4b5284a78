package manifest

import (
	"cmp"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Resource is a typed API object, as every generated Go type of one is.
type Resource interface {
	runtime.Object
	metav1.Object
}

// Object is an API object and where it is defined. Objects are shared: modify a
// DeepCopy.
type Object struct {
	Resource
	// Source is the first line of the object's definition.
	Source Position

	// key spares reading the resource again; zero in literals of other packages,
	// which have no definition either.
	key        Key
	definition *definition
}

// newObject makes an Object of a resource that has its kind set.
func newObject(r Resource, source Position, d *definition) Object {
	return Object{r, source, keyOf(r), d}
}

// Key names the object.
func (o Object) Key() Key {
	if o.key == (Key{}) {
		return keyOf(o.Resource)
	}
	return o.key
}

func keyOf(r Resource) Key {
	gvk := r.GetObjectKind().GroupVersionKind()
	return Key{Group: gvk.Group, Kind: gvk.Kind, Namespace: r.GetNamespace(), Name: r.GetName()}
}

// Key identifies an object. It does not include the version.
type Key struct {
	Group     string
	Kind      string
	Namespace string // "" for kinds that have none
	Name      string
}

// String gives Kind namespace/name.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + " " + k.Name
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name
}

// Compare orders keys by kind, namespace, name and group.
func (k Key) Compare(o Key) int {
	return cmp.Or(strings.Compare(k.Kind, o.Kind), strings.Compare(k.Namespace, o.Namespace),
		strings.Compare(k.Name, o.Name), strings.Compare(k.Group, o.Group))
}

// Position is a place in a file. Line is 0 when it is the whole file.
type Position struct {
	File string
	Line int
}

// String gives file:line.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Compare orders positions by file, then line.
func (p Position) Compare(o Position) int {
	return cmp.Or(strings.Compare(p.File, o.File), cmp.Compare(p.Line, o.Line))
}

// Problem is one thing wrong with a manifest. It is an error.
type Problem struct {
	// Position is the line of the offending field, or of the deepest part of its
	// path that is written down.
	Position Position
	// Object is "Kind namespace/name", or "" when not even that could be read.
	Object string
	// Field is the path of the offending field, or "".
	Field string
	// Message says what is wrong and what to do.
	Message string
}

// Error gives everything on one line, position first.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Position.String())
	for _, part := range []string{p.Object, p.Field, p.Message} {
		if part != "" {
			b.WriteString(": ")
			b.WriteString(part)
		}
	}
	return b.String()
}

// Problem makes a problem of a field of the object.
func (o Object) Problem(field, message string) Problem {
	return Problem{Position: o.At(field), Object: o.Key().String(), Field: field, Message: message}
}

func (p Problem) compare(o Problem) int {
	return cmp.Or(p.Position.Compare(o.Position), strings.Compare(p.Object, o.Object),
		strings.Compare(p.Field, o.Field), strings.Compare(p.Message, o.Message))
}
