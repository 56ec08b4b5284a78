package manifest

import (
	"io/fs"
	"syscall"
)

// stampOf uses the inode and its change time besides what every system has:
// mtime alone can be set back.
func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode, s.ctime = st.Ino, st.Ctim.Nano()
	}
	return s
}
