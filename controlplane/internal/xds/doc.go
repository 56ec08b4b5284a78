// Package xds distributes compiled resources to ztunnels and node agents over
// delta ADS.
//
// Resources live once in a store. Each type has a change log: a list of its
// names in the order of their last change, the gone ones included for as long as
// a client may have to be told. A client is a position in each log that it
// subscribes to and nothing more, so a slow one costs no memory, misses no
// change and is told each name once, at its newest:
//
//	Apply(Delta) ─▶ log: … a ─ b ─ c ─ a' ─▶     wake every client
//	                      ▲          ▲
//	                 client 1    client 2       push = names after the position
//
// One push is under way per stream; the next begins when all parts of it are
// acknowledged. Policies are sent before the workloads that name them and
// withdrawn after, so that no client sees a name that it cannot resolve. A
// refused push (NACK) is logged and counted, and not sent again until something
// in it changes. A client that neither reads nor acknowledges is disconnected.
//
// What the resources mean is package compile's; who the clients are is package
// nodes'.
package xds
