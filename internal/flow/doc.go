// Package flow keeps what happened to connections and requests, and tells those
// who ask.
//
//	proxy ── Append(*Record) ─▶ Log (ring) ◀── reads at its own pace ── Server ── gRPC ─▶ observer
//
// Append is called once when a connection or request is over, never for its
// bytes. It copies the record into a slot that is there already, takes no lock
// that anybody holds for long, and wakes observers if there are any. An observer
// that is slower than the proxy finds that slots it has not read hold newer
// records; it is told how many it lost, and the proxy does not wait.
//
// A Record holds what a proxy has at hand: pointers and numbers. It becomes a
// message of apis/flow only when somebody reads it. Filters are evaluated on
// those, here for the server, and by readers that join records.
package flow
