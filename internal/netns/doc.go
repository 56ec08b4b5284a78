// Package netns opens sockets inside other network namespaces.
//
// A socket belongs for its whole life to the namespace of the thread that made
// it, so only socket(2) itself has to run there:
//
//	lock thread → setns(target) → socket(2) → setns(home) → unlock thread
//
// Everything after it (options, bind, connect, accept, bytes) happens from any
// thread, driven by the runtime's poller: a connection attempt that takes ten
// seconds holds no thread.
//
// Conn and Listener exist because package net has no way to adopt a descriptor
// without duplicating it, and sets options on each accepted connection that the
// kernel would let it inherit from the listener. An accepted connection costs
// accept4, fcntl and epoll_ctl here.
//
// Needs CAP_SYS_ADMIN over both namespaces. What the sockets are for, which
// marks they carry and which rules stand in the namespace is left to others.
package netns
