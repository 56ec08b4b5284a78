package local

import (
	"debug/buildinfo"
	"os"
	"path/filepath"
	"runtime/debug"
)

// programLocal is ambit without the parts for clusters. It is started instead of this
// program where it lies beside it: it takes less than half of the memory, and starts in
// a tenth of the time.
const programLocal = "ambit-local"

// selfProgram is the program that runs.
const selfProgram = "/proc/self/exe"

// insideProgram gives the program that a sandbox consists of. It must be of the same
// build as this one, because the two talk in a way that is nobody else's business.
func insideProgram() string {
	self, err := os.Executable()
	if err != nil {
		return selfProgram
	}
	mine, ok := debug.ReadBuildInfo()
	if !ok {
		return selfProgram
	}
	other := filepath.Join(filepath.Dir(self), programLocal)
	if info, err := buildinfo.ReadFile(other); err != nil || !sameBuild(mine, info) {
		return selfProgram
	}
	return other
}

// sameBuild says whether two programs were built from the same source, which must be
// known of both: a revision without changes, or a version.
func sameBuild(a, b *debug.BuildInfo) bool {
	source := func(i *debug.BuildInfo) string {
		version := i.Main.Version
		for _, s := range i.Settings {
			switch {
			case s.Key == "vcs.modified" && s.Value == "true":
				return ""
			case s.Key == "vcs.revision":
				version = s.Value
			}
		}
		if version == "" || version == "(devel)" {
			return ""
		}
		return i.GoVersion + " " + i.Main.Path + " " + version
	}
	return source(a) != "" && source(a) == source(b)
}
