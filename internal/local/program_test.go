package local

import (
	"runtime/debug"
	"testing"
)

func TestSameBuild(t *testing.T) {
	build := func(path, version, revision, modified string) *debug.BuildInfo {
		info := &debug.BuildInfo{GoVersion: "go1", Main: debug.Module{Path: path, Version: version}}
		if revision != "" {
			info.Settings = []debug.BuildSetting{{Key: "vcs.revision", Value: revision}, {Key: "vcs.modified", Value: modified}}
		}
		return info
	}
	mine := build("m", "v0.0.0-1", "abc", "false")
	for name, tc := range map[string]struct {
		a, b *debug.BuildInfo
		same bool
	}{
		"same":             {mine, build("m", "v0.0.0-1", "abc", "false"), true},
		"released":         {build("m", "v1", "", ""), build("m", "v1", "", ""), true},
		"other revision":   {mine, build("m", "v0.0.0-1", "def", "false"), false},
		"other version":    {build("m", "v1", "", ""), build("m", "v2", "", ""), false},
		"with changes":     {mine, build("m", "v0.0.0-1", "abc", "true"), false},
		"both changed":     {build("m", "v0", "abc", "true"), build("m", "v0", "abc", "true"), false},
		"somebody else's":  {mine, build("n", "v0.0.0-1", "abc", "false"), false},
		"nothing is known": {build("m", "(devel)", "", ""), build("m", "(devel)", "", ""), false},
	} {
		if got := sameBuild(tc.a, tc.b); got != tc.same {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := insideProgram(); got != selfProgram {
		t.Errorf("nothing lies beside the test, but it takes %s", got)
	}
}
