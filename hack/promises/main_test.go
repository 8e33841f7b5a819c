package main

import (
	"strings"
	"testing"
)

const output = `{"Action":"run","Package":"github.com/locald/locald/internal/system","Test":"TestCrash"}
{"Action":"attr","Package":"github.com/locald/locald/internal/system","Test":"TestCrash","Key":"promise","Value":"P5 F10 F9"}
{"Action":"attr","Package":"github.com/locald/locald/internal/system","Test":"TestCrash","Key":"runs","Value":"1000"}
{"Action":"attr","Package":"github.com/locald/locald/internal/system","Test":"TestCrash","Key":"failures","Value":"2"}
{"Action":"attr","Package":"github.com/locald/locald/internal/system","Test":"TestCrash","Key":"table","Value":"| kind | A |"}
{"Action":"output","Package":"github.com/locald/locald/internal/system","Test":"TestCrash","Output":"x\n"}
{"Action":"fail","Package":"github.com/locald/locald/internal/system","Test":"TestCrash"}
not an event
{"Action":"attr","Package":"github.com/locald/locald/ipc","Test":"TestStrange","Key":"promise","Value":"P5"}
{"Action":"pass","Package":"github.com/locald/locald/ipc","Test":"TestStrange"}
{"Action":"attr","Package":"github.com/locald/locald/ipc","Test":"TestElsewhere","Key":"promise","Value":"P7"}
{"Action":"skip","Package":"github.com/locald/locald/ipc","Test":"TestElsewhere"}
`

func TestPage(t *testing.T) {
	run, err := read(strings.NewReader(output))
	if err != nil {
		t.Fatal(err)
	}
	if !run.failed {
		t.Error("the failure is not seen")
	}
	var page strings.Builder
	if err := run.write(&page, []string{"on a machine"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"- on a machine\n",
		"| `internal/system` TestCrash (**failed**)<br>`ipc` TestStrange | 1001 | 2 |\n",
		"| `ipc` TestElsewhere (skipped) | 0 | 0 |\n",
		"| none | 0 | 0 |\n",
		"| F9 | `internal/system` TestCrash (**failed**) | 1000 | 2 |\n| F10 |",
		"\n## TestCrash\n\n| kind | A |\n",
	} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("no %q in\n%s", want, page.String())
		}
	}
}

func TestBrokenOutput(t *testing.T) {
	for _, broken := range []string{
		"{\n",
		`{"Action":"attr","Test":"T","Key":"runs","Value":"many"}` + "\n",
	} {
		if _, err := read(strings.NewReader(broken)); err == nil {
			t.Errorf("%s is taken", broken)
		}
	}
}
