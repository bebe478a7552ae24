// Package ext stands in for a module inside of Traefik's repository that is not published:
// a module's archive leaves out the modules nested in it. It is Traefik's extension point,
// two embedded structs without fields, and pkg/config/dynamic alone refers to it.
package ext

// HTTP is embedded in dynamic.HTTPConfiguration.
type HTTP struct{}

// DeepCopyInto copies in into out.
func (in *HTTP) DeepCopyInto(out *HTTP) { *out = *in }

// Router is embedded in dynamic.Router.
type Router struct{}

// DeepCopyInto copies in into out.
func (in *Router) DeepCopyInto(out *Router) { *out = *in }
