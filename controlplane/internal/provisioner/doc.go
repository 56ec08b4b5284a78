// Package provisioner makes the objects of waypoints in a cluster and keeps them
// as they are meant to be.
//
//	Gateway, or the label that implies one ─ provision.Make ─ Overlay ─▶ server-side apply, field by field what is the mesh's
//	an edit of these fields, a deletion    ─▶ applied again
//	no waypoint any more                   ─▶ what carries the mesh's labels is deleted
//
// An object of the same name that does not carry the mesh's labels is somebody's
// own and is left as it is: the Gateway's status says so. Fields that others add
// stay. What is as it should be is not written.
//
// What is made is decided in controlplane/provision. A Provisioner is run by the
// leader alone.
package provisioner
