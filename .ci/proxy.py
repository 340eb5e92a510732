"""proxy.py LOG PORTFILE: an HTTP proxy on the loopback interface that writes a line into LOG for each package file
that it fetches. It writes its port into PORTFILE, and ends when its standard input does."""
import http.server
import os
import shutil
import sys
import threading
import urllib.error
import urllib.request

HEADERS = ("If-Modified-Since", "Range", "If-Range", "Cache-Control", "User-Agent")


class Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # apt sends several requests on one connection

    def do_GET(self):
        headers = {name: self.headers[name] for name in HEADERS if name in self.headers}
        try:
            answer = urllib.request.urlopen(urllib.request.Request(self.path, headers=headers), timeout=60)
        except urllib.error.HTTPError as refusal:  # 304 and 404 are answers like others
            answer = refusal
        except OSError as failure:
            self.send_error(502, str(failure))
            return
        with answer:
            self.send_response(answer.status)
            for name in ("Content-Length", "Content-Type", "Content-Range", "Last-Modified", "ETag"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            if "Content-Length" not in answer.headers:
                self.send_header("Connection" if answer.status == 200 else "Content-Length",
                                 "close" if answer.status == 200 else "0")
            self.end_headers()
            if self.path.endswith(".deb"):
                with open(sys.argv[1], "a") as log:
                    print(self.path, file=log)
            if answer.status not in (204, 304):
                try:
                    shutil.copyfileobj(answer, self.wfile, 1 << 20)
                except ConnectionError:  # who asked has been killed
                    self.close_connection = True

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
threading.Thread(target=server.serve_forever, daemon=True).start()
with open(sys.argv[2] + ".new", "w") as port:
    print(server.server_port, file=port)
os.rename(sys.argv[2] + ".new", sys.argv[2])
sys.stdin.read()
