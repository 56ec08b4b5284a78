// Command shop is the five services of the example shop, and who uses them, in
// one program. None of them knows of a mesh.
//
//	load ─▶ web (HTTP) ─┬▶ cart (HTTP) ─┬▶ catalog (gRPC)
//	                    │               └▶ stock (TCP, the server speaks first)
//	                    └▶ rates (UDP)
//
//	shop web | cart | catalog | stock | rates   serve; addresses come from the environment
//	shop load                             buys without end, and counts what fails
//	shop collector                        keeps spans and shows traces as trees
//	shop get [-n N] [-H FIELD] URL        fetches; exit code 1 unless each status is 200
package main
