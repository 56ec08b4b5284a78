package compile

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

// fewSlots has hosts meet all the time.
const fewSlots = 16

// What hosts get follows from the set of them, whatever led to it; no two get the same,
// and all get one while there are enough.
func TestVirtualAddressesFollowFromTheSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, set := newVirtual(fewSlots), make(map[string]virtualHost)
		for i := range rapid.IntRange(1, 40).Draw(t, "edits") {
			key := fmt.Sprintf("ns/h%d.example", rapid.IntRange(0, 25).Draw(t, "host"))
			if rapid.Bool().Draw(t, "remove") {
				v.drop(key, set[key].owner)
				delete(set, key)
			} else {
				h := virtualHost{types.NamespacedName{Namespace: "ns", Name: key}, time.Unix(int64(rapid.IntRange(0, 3).Draw(t, "age")), 0)}
				v.want(key, h)
				set[key] = h
			}
			if i%3 == 0 {
				v.settle()
			}
		}
		v.settle()
		scratch := newVirtual(fewSlots)
		for key, h := range set { // in an order that is another one each time
			scratch.want(key, h)
		}
		scratch.settle()
		if !maps.Equal(v.given, scratch.given) {
			t.Fatalf("after edits %v, at once %v", v.given, scratch.given)
		}
		if want := min(len(set), fewSlots-2); len(v.given) != want {
			t.Fatalf("%d of %d hosts have an address", len(v.given), want)
		}
		seen := make(map[uint16]string)
		for key, slot := range v.given {
			if other := seen[slot]; other != "" || slot == 0 || slot == fewSlots-1 {
				t.Fatalf("%s and %q have slot %d", key, other, slot)
			}
			seen[slot] = key
		}
	})
}

// A host that is younger than all others moves nobody, neither when it comes nor when
// it goes, and settle names exactly those whose address is another one.
func TestYoungestHostMovesNobody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := newVirtual(fewSlots)
		for i := range rapid.IntRange(0, fewSlots).Draw(t, "hosts") {
			v.want(fmt.Sprintf("ns/h%d.example", i), virtualHost{created: time.Unix(int64(i), 0)})
		}
		v.settle()
		before := maps.Clone(v.given)
		young := "ns/" + rapid.StringMatching("[a-z]{3,8}").Draw(t, "name")
		owner := types.NamespacedName{Namespace: "ns", Name: "young"}
		v.want(young, virtualHost{owner, time.Unix(1000, 0)})
		for _, moved := range v.settle() {
			if moved != owner {
				t.Fatalf("%s moved", moved)
			}
		}
		v.drop(young, owner)
		if moved := v.settle(); len(moved) != 0 || !maps.Equal(v.given, before) {
			t.Fatalf("%v moved: %v, before %v", moved, v.given, before)
		}
	})
}

// Addresses that were given out before this was so are the same still.
func TestVirtualAddressIsTheHash(t *testing.T) {
	v := newVirtual(virtualSlots)
	v.want("shop/api.example.com", virtualHost{})
	v.settle()
	if got := v.of("shop/api.example.com"); len(got) != 2 || got[0].String() != "240.240.60.231" {
		t.Errorf("%v", got)
	}
}
