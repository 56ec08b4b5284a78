// Package join puts the records of one call together: those of the ztunnel where
// it begins, of the waypoint that it goes through, and of the ztunnel where it
// ends. It is pure: records and times in, calls out.
//
// Records name the tunnel streams that they are about, and those are what joins
// them. A stream between ztunnels carries one connection, so that each end's
// record is half of it. A stream to a waypoint carries any number of requests, and
// so does one from a waypoint: the records of such streams say where the requests
// come from and go to, and are no calls themselves.
//
//	ztunnel ── stream A ─▶ waypoint ── stream B ─▶ ztunnel
//	{out: A}               {in: A, out: B} ...     {in: B}
//
// Records come in any order, late, or not at all. A call waits for what is missing
// for a bounded time, and is given without it then. What comes after that is
// dropped, unless it tells of another outcome.
package join
