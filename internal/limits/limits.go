// Package limits lists the bounds of a waypoint that its users may set, by a flag of
// the program or an annotation of its Gateway: both have the same names and take the
// same values.
//
//	--idle-timeout=5m    ambit-mesh.io/waypoint-idle-timeout: 5m
//
// It is pure. What the bounds mean is with those who keep them.
package limits

import (
	"fmt"
	"strconv"
	"time"
)

// Limit is a bound: a number, or a duration.
type Limit struct {
	// Name is that of the flag.
	Name string
	// Duration says that values are durations, and Min and Max nanoseconds.
	Duration bool
	Min, Max int64
}

// Names of the bounds that others must know.
const (
	DrainTimeout   = "drain-timeout"
	MaxHeaderBytes = "max-header-bytes"
	MaxTargetBytes = "max-target-bytes"
)

// DefaultHeaderBytes is how large a head may be where nothing says otherwise.
const DefaultHeaderBytes = 64 << 10

// All gives the bounds, in the order in which people read of them.
func All() []Limit {
	number := func(name string, least, most int64) Limit { return Limit{Name: name, Min: least, Max: most} }
	duration := func(name string, least, most time.Duration) Limit {
		return Limit{Name: name, Duration: true, Min: int64(least), Max: int64(most)}
	}
	return []Limit{
		number(MaxHeaderBytes, 1<<10, 1<<20),
		number("max-header-fields", 8, 1<<16),
		number(MaxTargetBytes, 64, 1<<20),
		duration("header-timeout", time.Second, time.Hour),
		duration("body-timeout", time.Second, 24*time.Hour),
		duration("idle-timeout", time.Second, 24*time.Hour),
		// More streams have no room in the window of a connection (internal/http2).
		number("max-streams", 1, 256),
		number("max-handshakes", 1, 1<<16),
		number("max-udp-sessions", 1, 1<<20),
		duration(DrainTimeout, time.Second, time.Hour),
	}
}

// Check says why a value is not possible, and which are.
func (l Limit) Check(value string) error {
	n, err := l.Parse(value)
	switch {
	case err != nil && l.Duration:
		return fmt.Errorf("%q is not a duration: write for example %s", value, time.Duration(l.Min))
	case err != nil:
		return fmt.Errorf("%q is not a whole number: use %d to %d", value, l.Min, l.Max)
	case n >= l.Min && n <= l.Max:
		return nil
	case l.Duration:
		return fmt.Errorf("%q is not possible: use %s to %s", value, time.Duration(l.Min), time.Duration(l.Max))
	}
	return fmt.Errorf("%q is not possible: use %d to %d", value, l.Min, l.Max)
}

// Parse gives the number, or the nanoseconds of a duration.
func (l Limit) Parse(value string) (int64, error) {
	if !l.Duration {
		return strconv.ParseInt(value, 10, 64)
	}
	d, err := time.ParseDuration(value)
	return int64(d), err
}
