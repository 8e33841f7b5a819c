package manual

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// types is ipc/types.go.
func types(t *testing.T) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../ipc/types.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// constants are the constants of ipc/types.go whose names begin with a prefix,
// with what their comments say.
func constants(t *testing.T, prefix string) (values, comments []string) {
	t.Helper()
	ast.Inspect(types(t), func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, prefix) {
			return true
		}
		if literal, ok := spec.Values[0].(*ast.BasicLit); ok && literal.Kind == token.STRING {
			value, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, value)
			comments = append(comments, strings.TrimSpace(spec.Comment.Text()))
		}
		return true
	})
	return values, comments
}

// TestCalls writes the table of calls and the values that they carry.
func TestCalls(t *testing.T) {
	values, comments := constants(t, "Call")
	if len(values) < 10 {
		t.Fatalf("only the calls %v", values)
	}
	var calls strings.Builder
	calls.WriteString("| call | arguments | answer |\n|---|---|---|\n")
	for i, call := range values {
		args, answer, ok := strings.Cut(comments[i], " → ")
		if !ok {
			t.Errorf("%s: its comment does not say arguments → answer", call)
		}
		fmt.Fprintf(&calls, "| `%s` | %s | %s |\n", call, args, answer)
	}
	generated(t, "ipc.md", "calls", calls.String())

	var structs strings.Builder
	for _, decl := range types(t).Decls {
		general, ok := decl.(*ast.GenDecl)
		if !ok || general.Tok != token.TYPE {
			continue
		}
		spec := general.Specs[0].(*ast.TypeSpec)
		if fields, ok := spec.Type.(*ast.StructType); ok && len(fields.Fields.List) > 0 && spec.Name.Name != "Request" {
			doc := strings.TrimSpace(general.Doc.Text())
			fmt.Fprintf(&structs, "**%s.** %s\n\n| field | type | |\n|---|---|---|\n", spec.Name.Name, doc)
			for _, f := range fields.Fields.List {
				structs.WriteString(row(f))
			}
			structs.WriteString("\n")
		}
	}
	generated(t, "ipc.md", "values", structs.String())
}

// row is one field of a value.
func row(f *ast.Field) string {
	name := "all of " + typeName(f.Type)
	if f.Tag != nil {
		tag, _ := strconv.Unquote(f.Tag.Value)
		name, _, _ = strings.Cut(reflect.StructTag(tag).Get("json"), ",")
		if name == "-" {
			return ""
		}
		name = "`" + name + "`"
	}
	comment := strings.TrimSpace(f.Comment.Text())
	if comment == "" {
		comment = strings.TrimSpace(strings.ReplaceAll(f.Doc.Text(), "\n", " "))
	}
	return fmt.Sprintf("| %s | %s | %s |\n", name, typeName(f.Type), comment)
}

// typeName is what JSON has for a type.
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeName(e.X) + " or null"
	case *ast.ArrayType:
		if typeName(e.Elt) == "byte" {
			return "base64"
		}
		return "list of " + typeName(e.Elt)
	case *ast.MapType:
		return "table of " + typeName(e.Value)
	case *ast.SelectorExpr:
		return "time"
	case *ast.Ident:
		switch e.Name {
		case "int", "int64", "uint64":
			return "number"
		case "bool":
			return "true or false"
		}
		return e.Name
	}
	return "value"
}

// TestCodes: every code has a paragraph that says what to do about it, and
// every kind of event is explained.
func TestCodes(t *testing.T) {
	codes, _ := constants(t, "Code")
	text := page(t, "troubleshooting.md")
	for _, code := range codes {
		if !strings.Contains(text, "\n**`"+code+"`**: ") {
			t.Errorf("troubleshooting.md has no paragraph about %s", code)
		}
	}
	mentions(t, "ipc.md", codes...)
	events, _ := constants(t, "Event")
	text = page(t, "ipc.md")
	for _, event := range events {
		if !strings.Contains(text, "\n| `"+event+"` | ") {
			t.Errorf("the table of events in ipc.md has no row %s", event)
		}
	}
}
