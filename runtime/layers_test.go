package runtime

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestLayersAddUpAndAreReportedSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testLayers)
}

func testLayers(t *testing.T) {
	var got []Progress
	l := NewLayers("app:1", func(p Progress) { got = append(got, p) })
	said := func(after time.Duration, do func(), want ...Progress) {
		t.Helper()
		time.Sleep(after)
		got = nil
		do()
		if !slices.Equal(got, want) {
			t.Errorf("reported %v; want %v", got, want)
		}
	}
	const pulling, unpacking = "pulling app:1", "unpacking app:1"
	said(time.Second, func() { l.Set("b", Done, 0, 0) }) // it was there before
	said(0, func() { l.Set("a", Waiting, 0, 10) },
		Progress{pulling, "a", Waiting, 0, 10}, Progress{pulling, "", "", 0, 10})
	said(0, func() { l.Set("a", Downloading, 1, 10) }, Progress{pulling, "a", Downloading, 1, 10})
	said(reportEvery/2, func() { l.Set("a", Downloading, 2, 10) })
	said(reportEvery/2, func() { l.Set("a", Downloading, 3, 0) },
		Progress{pulling, "a", Downloading, 3, 10}, Progress{pulling, "", "", 3, 10})
	const trouble = "pulling app:1: layer a: broke off; trying again"
	said(0, func() { l.Retry("a", "broke off") },
		Progress{pulling, "a", Retrying, 3, 10}, Progress{trouble, "", Retrying, 3, 10})
	said(0, func() { l.Retry("a", "broke off") })
	said(0, func() { l.Set("c", Downloading, 0, 4) }, Progress{pulling, "c", Downloading, 0, 4})
	said(reportEvery, func() { l.Set("c", Downloading, 4, 4) }, // a stays what is said of the whole
		Progress{pulling, "c", Downloading, 4, 4}, Progress{trouble, "", Retrying, 7, 14})
	said(0, func() { l.Set("c", Downloaded, 0, 0) }, Progress{pulling, "c", Downloaded, 4, 4})
	said(0, func() { l.Set("a", Downloading, 3, 10) },
		Progress{pulling, "a", Downloading, 3, 10}, Progress{pulling, "", "", 7, 14})
	said(0, func() { l.Set("a", Unpacking, 20, 40) },
		Progress{pulling, "a", Unpacking, 20, 40}, Progress{unpacking, "", "", 20, 40})
	said(0, func() { l.Retry("", "500 internal server error") },
		Progress{"pulling app:1: 500 internal server error; trying again", "", Retrying, 14, 14})
	said(0, func() { l.Set("a", Done, 0, 0) },
		Progress{pulling, "a", Done, 10, 10}, Progress{unpacking, "", "", 40, 40})
	said(0, func() { l.Finish() },
		Progress{pulling, "c", Done, 4, 4}, Progress{unpacking, "", "", 40, 40})
}
