package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/rogpeppe/go-internal/txtar"
)

func TestSchemaIsTheCommittedOne(t *testing.T) {
	t.Parallel()
	const path = "testdata/schema.json"
	if *update {
		try(t, os.WriteFile(path, Schema(), 0o600))
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(Schema(), want) {
		t.Errorf("%v: testdata/schema.json is not the schema; see -update", err)
	}
}

// TestSchemaAgreesWithTheChecker holds the schema against every locald.toml of
// testdata: it accepts each that loads, and refuses each with an unknown key or
// a value of a wrong kind.
func TestSchemaAgreesWithTheChecker(t *testing.T) {
	t.Parallel()
	var schema any
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	archives, err := filepath.Glob("testdata/load/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	accepted, refused := 0, 0
	for _, path := range archives {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(archive.Files) == 0 || archive.Files[0].Name != FileName {
			continue
		}
		var document map[string]any
		if toml.Unmarshal(archive.Files[0].Data, &document) != nil {
			continue
		}
		why := refusal(schema, roundTrip(t, document), "")
		result := archive.Files[len(archive.Files)-1]
		switch {
		case result.Name == "result":
			accepted++
			if why != "" {
				t.Errorf("%s loads, and the schema says %s", path, why)
			}
		case strings.Contains(string(result.Data), FileName+":") && shapeProblem.Match(result.Data) && !strings.Contains(path, "local_"):
			refused++
			if why == "" {
				t.Errorf("%s does not load, and the schema accepts it", path)
			}
		}
	}
	if accepted < 10 || refused < 5 {
		t.Errorf("%d accepted and %d refused are too few to tell", accepted, refused)
	}
}

var shapeProblem = regexp.MustCompile(`: unknown (key|table) | must be (a |an |"|between)`)

func roundTrip(t *testing.T, v any) any {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		// NaN has no JSON form.
		return nil
	}
	var back any
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	return back
}

// refusal says why a value does not satisfy a schema, for the keywords that
// Schema uses.
func refusal(schema, v any, path string) string {
	if b, ok := schema.(bool); ok {
		if b {
			return ""
		}
		return path + " is forbidden"
	}
	for keyword, rule := range schema.(map[string]any) {
		if why := keywordRefusal(keyword, rule, schema.(map[string]any), v, path); why != "" {
			return why
		}
	}
	return ""
}

func keywordRefusal(keyword string, rule any, schema map[string]any, v any, path string) string {
	table, isTable := v.(map[string]any)
	text, isText := v.(string)
	number, isNumber := v.(float64)
	list, isList := v.([]any)
	wrong := ""
	switch keyword {
	case "type":
		fits := map[string]bool{
			"object": isTable, "string": isText, "number": isNumber, "array": isList,
			"integer": isNumber && number == float64(int64(number)),
			"boolean": v == true || v == false,
		}
		if !fits[rule.(string)] {
			wrong = path + " is not of type " + rule.(string)
		}
	case "const":
		if v != rule {
			wrong = path + " is another constant"
		}
	case "enum":
		if !slices.Contains(rule.([]any), v) {
			wrong = path + " is not in the list"
		}
	case "pattern":
		if isText && !regexp.MustCompile(rule.(string)).MatchString(text) {
			wrong = path + " does not match"
		}
	case "minimum":
		if isNumber && number < rule.(float64) {
			wrong = path + " is too small"
		}
	case "exclusiveMinimum":
		if isNumber && number <= rule.(float64) {
			wrong = path + " is too small"
		}
	case "maximum":
		if isNumber && number > rule.(float64) {
			wrong = path + " is too large"
		}
	case "minItems":
		if isList && float64(len(list)) < rule.(float64) {
			wrong = path + " is too short"
		}
	case "items":
		for _, item := range list {
			wrong = cmp.Or(wrong, refusal(rule, item, path+"[]"))
		}
	case "required":
		for _, key := range rule.([]any) {
			if _, ok := table[key.(string)]; isTable && !ok {
				wrong = path + " lacks " + key.(string)
			}
		}
	case "properties":
		for key, below := range rule.(map[string]any) {
			if value, ok := table[key]; ok {
				wrong = cmp.Or(wrong, refusal(below, value, path+"."+key))
			}
		}
	case "propertyNames":
		for key := range table {
			wrong = cmp.Or(wrong, refusal(rule, key, path+"."+key))
		}
	case "additionalProperties":
		properties, _ := schema["properties"].(map[string]any)
		for key, value := range table {
			if _, ok := properties[key]; !ok {
				wrong = cmp.Or(wrong, refusal(rule, value, path+"."+key))
			}
		}
	case "anyOf":
		for _, option := range rule.([]any) {
			why := refusal(option, v, path)
			if why == "" {
				return ""
			}
			wrong = why
		}
	case "allOf":
		for _, part := range rule.([]any) {
			wrong = cmp.Or(wrong, refusal(part, v, path))
		}
	case "if":
		if refusal(rule, v, path) == "" {
			wrong = refusal(schema["then"], v, path)
		}
	case "then", "description", "default", "title", "$schema", "$comment":
	default:
		wrong = "unknown keyword " + keyword
	}
	return wrong
}
