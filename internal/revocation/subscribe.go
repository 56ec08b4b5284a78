package revocation

import (
	"fmt"

	capb "github.com/ambit-mesh/ambit/apis/ca"
	"github.com/ambit-mesh/ambit/internal/xdsclient"
)

// TypeURL is of the resource by which lists are distributed; there is one, Name.
const (
	TypeURL = "type.googleapis.com/ambit.ca.v1.RevocationLists"
	Name    = "mesh"
)

// Subscription keeps the lists of the control plane in force. A control plane that has
// none leaves things as they are.
func (c *Checker) Subscription() xdsclient.Subscription {
	return xdsclient.Subscription{TypeURL: TypeURL, Handle: c.handle}
}

func (c *Checker) handle(u xdsclient.Update) error {
	for _, name := range u.Removed {
		if name == Name {
			return c.Set(nil)
		}
	}
	for _, res := range u.Resources {
		if res.GetName() != Name {
			continue
		}
		lists := new(capb.RevocationLists)
		err := res.GetResource().UnmarshalTo(lists)
		if err == nil {
			err = c.Set(lists.GetLists())
		}
		if err != nil {
			return &xdsclient.Rejected{Errors: map[string]error{Name: fmt.Errorf("revocation lists stay as they were: %w", err)}}
		}
	}
	return nil
}
