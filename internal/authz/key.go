package authz

import (
	"cmp"
	"errors"
	"strings"
)

// ErrMalformed is wrapped by the errors of Compile.
var ErrMalformed = errors.New("malformed policy")

// Key names a policy.
type Key struct {
	Namespace string
	Name      string
}

// String gives <namespace>/<name>, the form in which workloads list policies.
func (k Key) String() string {
	if k == (Key{}) {
		return ""
	}
	return k.Namespace + "/" + k.Name
}

// ParseKey reads what String gives.
func ParseKey(s string) (Key, bool) {
	namespace, name, ok := strings.Cut(s, "/")
	return Key{Namespace: namespace, Name: name}, ok && namespace != "" && name != ""
}

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
