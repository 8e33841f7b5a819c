package config

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// checkTogether checks what only all services together tell.
func (d *decoder) checkTogether() {
	services := make(map[string]*Service, len(d.project.Services))
	for _, s := range d.project.Services {
		services[s.Name] = s
	}
	for _, s := range d.project.Services {
		d.checkDependencies(s, services)
		for _, r := range d.references[s.Name] {
			d.checkReferences(s, r, services)
		}
	}
	d.checkCycles(services)
	d.checkPorts()
	d.checkBuilds()
	for _, s := range d.project.Services {
		d.checkNames(s, services)
	}
}

// checkDependencies checks the written ones and fills in their conditions.
func (d *decoder) checkDependencies(s *Service, services map[string]*Service) {
	key := "services." + s.Name + ".depends_on"
	var good []Dependency
	for _, dep := range s.DependsOn {
		target := services[dep.Service]
		switch {
		case dep.Service == s.Name:
			d.addTo(s.Name, dep.Pos, "", "%s: %s depends on itself", key, s.Name)
		case target == nil && slices.Contains(d.known, dep.Service):
			// There is a problem about that service already.
		case target == nil:
			d.unknownService(s.Name, dep.Pos, key, dep.Service)
		case dep.Condition == Completed && target.Type != TypeTask && !d.untyped[dep.Service]:
			d.addTo(s.Name, dep.Pos, `condition = "ready"`, "%s: %s is not a task, it never completes", key, dep.Service)
		case slices.ContainsFunc(good, func(known Dependency) bool { return known.Service == dep.Service }):
			d.addTo(s.Name, dep.Pos, "", "%s: %s is there twice", key, dep.Service)
		default:
			good = append(good, Dependency{dep.Service, conditionFor(dep.Condition, target), false, dep.Pos})
		}
	}
	s.DependsOn = good
}

// conditionFor is the condition that is meant: a task that is ready has
// completed.
func conditionFor(written string, target *Service) string {
	if target.Type == TypeTask && written != Started {
		return Completed
	}
	return cmp.Or(written, Ready)
}

func (d *decoder) unknownService(service string, at Pos, key, name string) {
	var others []string
	for _, known := range d.known {
		if known != service {
			others = append(others, known)
		}
	}
	d.addTo(service, at, didYouMean(name, others, "the services are"), "%s: no service %s", key, show(name))
}

// checkReferences checks the references in one string and adds the
// dependencies that they imply.
func (d *decoder) checkReferences(s *Service, at located, services map[string]*Service) {
	for _, part := range Split(at.text) {
		switch {
		case part.Of == "":
		case part.Wrong != "":
			d.addTo(s.Name, at.pos, "", "%s: %s %s", at.key, quote(part.Written), part.Wrong)
		case part.Of == OfProject && !slices.Contains(projectFields, part.Field):
			d.addTo(s.Name, at.pos, didYouMean(part.Field, projectFields, "its fields are"), "%s: %s: the project has no field %s", at.key, part.Written, show(part.Field))
		case part.Of == OfService:
			d.checkServiceReference(s, part, at, services)
		}
	}
}

func (d *decoder) checkServiceReference(s *Service, part Part, at located, services map[string]*Service) {
	target := services[part.Service]
	switch {
	case target == nil && slices.Contains(d.known, part.Service):
		return
	case target == nil:
		d.unknownService(s.Name, at.pos, at.key+": "+part.Written, part.Service)
		return
	case !slices.Contains(serviceFields, part.Field):
		d.addTo(s.Name, at.pos, didYouMean(part.Field, serviceFields, "its fields are"), "%s: %s: unknown field %s", at.key, part.Written, show(part.Field))
		return
	}
	if why, hint := lacks(target, part); why != "" && !d.untyped[target.Name] {
		d.addTo(s.Name, at.pos, hint, "%s: %s: %s", at.key, part.Written, why)
		return
	}
	implied := slices.ContainsFunc(s.DependsOn, func(dep Dependency) bool { return dep.Service == part.Service })
	if part.Service != s.Name && !implied {
		s.DependsOn = append(s.DependsOn, Dependency{part.Service, conditionFor("", target), true, at.pos})
	}
}

// lacks says why a service does not have what is asked of it, "" when it has.
func lacks(target *Service, part Part) (why, hint string) {
	switch part.Field {
	case "url", "port":
		if !target.HasPort() {
			return fmt.Sprintf("%s is %s and has no port", target.Name, article(target.Type)), portHint(target)
		}
	case "host":
		if !target.HasPort() && len(target.Ports) == 0 {
			return fmt.Sprintf("%s is %s and has no port", target.Name, article(target.Type)), portHint(target)
		}
	case "ports":
		if _, ok := target.Ports[part.Port]; !ok {
			names := make([]string, 0, len(target.Ports))
			for name := range target.Ports {
				names = append(names, name)
			}
			slices.Sort(names)
			return fmt.Sprintf("%s has no port named %s", target.Name, show(part.Port)), didYouMean(part.Port, names, "its ports are")
		}
	default:
		// An image that is a reference may come to be one.
		perhaps := target.Type == TypeContainer && HasReference(target.Image)
		if !target.IsPostgres() && !perhaps {
			return fmt.Sprintf("%s is no Postgres and has no %s", target.Name, part.Field), ""
		}
	}
	return "", ""
}

func portHint(target *Service) string {
	if target.Type == TypeContainer {
		return "port = … in [services." + target.Name + "]"
	}
	return ""
}

// visit is how far the search for cycles has come with a service.
type visit uint8

const (
	unseen visit = iota
	onPath
	done
)

func (d *decoder) checkCycles(services map[string]*Service) {
	seen := make(map[string]visit, len(services))
	var path []string
	var walk func(s *Service)
	walk = func(s *Service) {
		seen[s.Name] = onPath
		path = append(path, s.Name)
		for _, dep := range s.DependsOn {
			switch seen[dep.Service] {
			case unseen:
				walk(services[dep.Service])
			case onPath:
				cycle := append(slices.Clone(path[slices.Index(path, dep.Service):]), dep.Service)
				d.addTo(s.Name, dep.Pos, "", "services depend on each other: %s", strings.Join(cycle, " → "))
			}
		}
		path = path[:len(path)-1]
		seen[s.Name] = done
	}
	for _, s := range d.project.Services {
		if seen[s.Name] == unseen {
			walk(s)
		}
	}
}

// fixed is a port of the host that a service wants for itself.
type fixed struct {
	service *Service
	key     string
	number  int
	pos     Pos
}

// fixedPorts are the ports of the host that are written.
func fixedPorts(s *Service) []fixed {
	var all []fixed
	add := func(key string, number int) {
		if number != 0 {
			all = append(all, fixed{s, "services." + s.Name + "." + key, number, s.At[key]})
		}
	}
	if s.Type == TypeContainer && s.Network != "host" {
		add("host_port", s.HostPort)
		return all
	}
	add("port", s.Port)
	for name, number := range s.Ports {
		add("ports."+name, number)
	}
	slices.SortFunc(all, func(a, b fixed) int {
		return cmp.Or(cmp.Compare(a.pos.Line, b.pos.Line), cmp.Compare(a.pos.Column, b.pos.Column))
	})
	return all
}

func (d *decoder) checkPorts() {
	taken := map[int][]fixed{}
	for _, s := range d.project.Services {
		for _, f := range fixedPorts(s) {
			for _, other := range taken[f.number] {
				if alternatives(s, other.service) {
					continue
				}
				d.addTo(s.Name, f.pos, "", "%s: port %d is that of %s too (%v)", f.key, f.number, other.key, other.pos)
				break
			}
			taken[f.number] = append(taken[f.number], f)
		}
	}
}

// checkBuilds reports services that would give one name to different images.
func (d *decoder) checkBuilds() {
	builds := map[string]*Service{}
	for _, s := range d.project.Services {
		if s.Build == nil || s.Image == "" {
			continue
		}
		other := builds[s.Image]
		if other != nil && !reflect.DeepEqual(s.Build.shown(), other.Build.shown()) {
			d.addTo(s.Name, s.At["image"], "another name for one of them", "services.%s.image: %s is what %s builds too, from something else", s.Name, quote(s.Image), other.Name)
		}
		builds[s.Image] = s
	}
}

// alternatives reports whether two services are in different profiles, and so
// need not run at the same time.
func alternatives(a, b *Service) bool {
	if a == b || len(a.Profiles) == 0 || len(b.Profiles) == 0 {
		return false
	}
	return !slices.ContainsFunc(a.Profiles, func(p string) bool { return slices.Contains(b.Profiles, p) })
}

// checkNames reports dependencies of s that would give it the same variable.
func (d *decoder) checkNames(s *Service, services map[string]*Service) {
	from := map[string]string{}
	own := map[string]bool{}
	for _, v := range s.Env {
		own[v.Name] = true
	}
	hasPostgres := false
	for _, dep := range s.DependsOn {
		target := services[dep.Service]
		if target.IsPostgres() && !hasPostgres {
			hasPostgres = true
			for _, name := range postgresVariables {
				from[name] = dep.Service
			}
		}
	}
	for _, dep := range s.DependsOn {
		names := addressVariables(services[dep.Service])
		for i, name := range names {
			other := from[name]
			switch {
			case own[name]:
			case i > 0 && names[i-1] == name:
				d.addTo(s.Name, dep.Pos, "rename one of the ports", "services.%s: two ports of %s would both be %s", s.Name, dep.Service, name)
			case other != "" && other != dep.Service:
				d.addTo(s.Name, dep.Pos, fmt.Sprintf("set %s in its env, or rename one of them", name), "services.%s: %s would be that of %s and of %s", s.Name, name, other, dep.Service)
			default:
				from[name] = dep.Service
			}
		}
	}
}
