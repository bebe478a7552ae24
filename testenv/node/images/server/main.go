// Command server is the program in the pods of checks.sh. Without arguments it serves HTTP on :8080;
// with arguments it is what `kubectl exec` runs to look at the world from inside of the pod.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

// Commands for exec, each with one argument.
var commands = map[string]func(string) (string, error){
	"get":     func(url string) (string, error) { return fetch(http.DefaultTransport, url, "") },
	"api":     askAPI,
	"resolve": func(name string) (string, error) { found, err := net.LookupHost(name); return fmt.Sprint(found), err },
	"read":    func(path string) (string, error) { data, err := os.ReadFile(path); return string(data), err },
	"write":   func(path string) (string, error) { return "written", os.WriteFile(path, []byte("x"), 0o600) },
	"exit":    func(code string) (string, error) { n, _ := strconv.Atoi(code); os.Exit(n); return "", nil },
}

func main() {
	if len(os.Args) == 3 {
		result, err := commands[os.Args[1]](os.Args[2])
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println(result)
		return
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		os.Exit(0)
	}()
	name, _ := os.Hostname()
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s from=%s\n", name, os.Getenv("VERSION"), r.RemoteAddr)
	})
	http.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) {
		status, _ := os.ReadFile("/proc/self/status")
		_, _ = w.Write(status)
	})
	http.HandleFunc("/eat", func(w http.ResponseWriter, r *http.Request) {
		megabytes, _ := strconv.Atoi(r.URL.Query().Get("mb"))
		eaten := make([]byte, megabytes<<20)
		for i := range eaten {
			eaten[i] = 1 // memory counts only when it is touched
		}
		fmt.Fprintln(w, "ate", len(eaten))
	})
	fmt.Println("listening", name)
	fmt.Println(http.ListenAndServe(":8080", nil))
	os.Exit(1)
}

// askAPI asks the API server with the pod's own credentials, by its Service's address or by name.
func askAPI(where string) (string, error) {
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return "", err
	}
	ca, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return "", err
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(ca)
	if strings.HasPrefix(where, "/") {
		where = "https://" + net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")) + where
	}
	return fetch(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}, where, "Bearer "+string(token))
}

func fetch(transport http.RoundTripper, url, authorization string) (string, error) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	response, err := (&http.Client{Timeout: 5 * time.Second, Transport: transport}).Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 300))
	return fmt.Sprintf("%d %s", response.StatusCode, strings.TrimSpace(string(body))), err
}
