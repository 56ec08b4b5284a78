// Package segment has a UDP socket send and receive packets in groups, for quic-go.
//
// quic-go writes packets together (UDP_SEGMENT) that are as large as the path takes,
// and every other one by itself: HTTP datagrams are others. It reads one packet for
// each buffer, so that the kernel cuts what came together. A packet on its own costs
// several times what the same bytes cost in a group, because each goes through the
// kernel's network stack, and there are two or more of those between two pods.
//
//	sending     WriteMsgUDP → what waits → groups of equal size → sendmsg
//	receiving   recvmmsg → groups (UDP_GRO) → ReadBatch, a packet for each message
//
// A packet that comes alone is written at once; those that follow closely wait while
// the ones before them are being written, and for nothing else.
package segment
