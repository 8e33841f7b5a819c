package config

import (
	"encoding/json"
	"slices"
)

// object is one object of a JSON Schema.
type object map[string]any

// Schema is the JSON Schema (draft 2020-12) of locald.toml. What it accepts the
// checker may still refuse, for what only several keys together tell; what it
// refuses the checker refuses.
func Schema() []byte {
	properties := make(object, len(serviceKeys))
	for _, k := range serviceKeys {
		property := schemaOf(k.shape)
		property["description"] = k.doc
		if k.fallback != nil {
			property["default"] = k.fallback
		}
		properties[k.name] = property
	}
	service := object{
		"type": "object", "additionalProperties": false, "properties": properties,
		"anyOf": []object{
			{"required": []string{"type"}},
			{"required": []string{"command"}},
			{"required": []string{"image"}},
			{"required": []string{"build"}},
		},
	}
	var perType []object
	for _, t := range serviceTypes {
		perType = append(perType, object{
			"if":   object{"required": []string{"type"}, "properties": object{"type": object{"const": t}}},
			"then": object{"properties": without(t)},
		})
	}
	service["allOf"] = perType
	root := object{
		"$schema":              "https://json-schema.org/draft/2020-12/schema",
		"title":                "locald.toml",
		"type":                 "object",
		"additionalProperties": false,
		"properties": object{
			"project": schemaOf(shape{fieldsOf(projectKeys...)}),
			"services": object{
				"type":                 "object",
				"propertyNames":        object{"pattern": serviceName.String()},
				"additionalProperties": service,
			},
		},
	}
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil // maps, strings and numbers always have a JSON form
	}
	return append(text, '\n')
}

// without forbids the keys that services of a type do not have.
func without(serviceType string) object {
	forbidden := object{}
	for _, k := range serviceKeys {
		if !k.has(serviceType) {
			forbidden[k.name] = false
		}
	}
	return forbidden
}

func schemaOf(s shape) object {
	if len(s) == 1 {
		return schemaOfForm(s[0])
	}
	forms := make([]object, len(s))
	for i, f := range s {
		forms[i] = schemaOfForm(f)
	}
	return object{"anyOf": forms}
}

func schemaOfForm(f form) object {
	switch f.kind {
	case stringKind:
		return schemaOfString(f)
	case integerKind, floatKind:
		return schemaOfNumber(f)
	case booleanKind:
		if f.onlyTrue {
			return object{"const": true}
		}
		return object{"type": "boolean"}
	case arrayKind:
		list := object{"type": "array", "items": schemaOf(f.items)}
		if f.some {
			list["minItems"] = 1
		}
		return list
	}
	if f.names != nil {
		return object{
			"type":                 "object",
			"propertyNames":        object{"pattern": f.names.String()},
			"additionalProperties": schemaOf(f.values),
		}
	}
	properties := make(object, len(f.keys))
	for _, k := range f.keys {
		property := schemaOf(k.shape)
		property["description"] = k.doc
		properties[k.name] = property
	}
	return object{"type": "object", "additionalProperties": false, "properties": properties}
}

func schemaOfString(f form) object {
	o := object{"type": "string"}
	if len(f.oneOf) > 0 {
		o["enum"] = slices.Clone(f.oneOf)
	}
	if f.pattern != nil {
		o["pattern"] = f.pattern.String()
	}
	if f.example != "" {
		o["$comment"] = f.example
	}
	return o
}

func schemaOfNumber(f form) object {
	o := object{"type": "number"}
	if f.kind == integerKind {
		o["type"] = "integer"
	}
	if f.above {
		o["exclusiveMinimum"] = f.low
	} else if f.low != 0 || f.high != 0 {
		o["minimum"] = f.low
	}
	if f.high != 0 {
		o["maximum"] = f.high
	}
	return o
}
