// Package l7 measures the waypoint beside Envoy: the same work, in one run, each
// proxy on one core of its own while it is measured, and everything else on
// another.
//
//	core B                                     core A                       core B
//	load ── HBONE: mTLS, HTTP/2 CONNECT ─▶ ambit-waypoint ── HBONE ─▶ backends
//	load ── mTLS ────────────────────────▶ envoy ─────────── mTLS ──▶ backends
//
// One process on core B is the load, the backends, the authority and the control
// plane that the waypoint asks; the proxies are the programs that users run.
package l7
