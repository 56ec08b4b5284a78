package route

import (
	"fmt"
	"math/bits"

	"github.com/ambit-mesh/ambit/apis/waypoint"
)

// Mirror sends a copy of a share of the requests to another backend, whose
// answers nobody waits for.
type Mirror struct {
	// Backend of the copies. When it is invalid nothing is mirrored: the Gateway
	// API drops the mirror and keeps the request (HTTPRequestMirrorFilter).
	Backend                Backend
	Numerator, Denominator uint32
}

// Hit says whether this request is mirrored, by a random number.
func (m *Mirror) Hit(random uint64) bool {
	return m.Backend.Invalid == "" && below(random, uint64(m.Denominator)) < uint64(m.Numerator)
}

// below maps a random number to one of 0 to n-1, evenly but for 1/2^64 of n.
func below(random, n uint64) uint64 {
	hi, _ := bits.Mul64(random, n)
	return hi
}

// mix gives further random numbers of one: the i-th step of SplitMix64.
func mix(random uint64, i int) uint64 {
	z := random + (uint64(i)+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (c *compiler) mirror(at string, pb *waypoint.Mirror) *Mirror {
	m := &Mirror{Backend: c.backendRef(at+".backend", pb.GetBackend()), Numerator: pb.GetNumerator(), Denominator: pb.GetDenominator()}
	if m.Denominator == 0 || m.Numerator > m.Denominator {
		c.problem(at, fmt.Sprintf("%d/%d is not a share; use a fraction from 0/1 to 1/1", m.Numerator, m.Denominator))
	}
	return m
}
