#!/usr/bin/env python3
"""`octavo serve` on the embedded model, over real sockets: the documented call, then hostile ones."""
import base64
import json
import threading
import unittest

from octavo_process import Server, read_png

CALL = {"prompt": "a red apple", "negative_prompt": "", "width": 128, "height": 128, "steps": 2, "cfg_scale": 7.0}


class Serve(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server().__enter__()
        cls.addClassCleanup(cls.server.__exit__)

    def draw(self, **changes):
        status, _, body = self.server.call("POST", "/sdapi/v1/txt2img", {**CALL, **changes})
        return status, json.loads(body)

    def test_documented_call_answers_with_a_picture(self):
        status, answer = self.draw(width=256, height=256, steps=30)
        self.assertEqual(status, 200, answer)
        self.assertEqual(set(answer), {"images", "parameters", "info"})
        width, height, rows, texts = read_png(base64.b64decode(answer["images"][0], validate=True))
        self.assertEqual((width, height), (256, 256))
        self.assertGreater(len(set(rows)), 1)
        self.assertIn("Steps: 30", texts["parameters"])
        info = json.loads(answer["info"])
        self.assertEqual(info["prompt"], "a red apple")
        self.assertGreaterEqual(info["seed"], 0)

    def test_seed_and_batch_behave_as_documented(self):
        _, both = self.draw(seed=5, batch_size=2)
        _, second = self.draw(seed=6)
        self.assertEqual(len(both["images"]), 2)
        self.assertEqual(json.loads(both["info"])["all_seeds"], [5, 6])
        pixels = [read_png(base64.b64decode(a["images"][-1]))[2] for a in (both, second)]
        self.assertEqual(pixels[0], pixels[1])
        _, iterated = self.draw(seed=5, n_iter=2)
        self.assertEqual(len(iterated["images"]), 2)

    def test_hostile_requests_are_refused_by_name_and_the_next_is_served(self):
        cases = [("width", {"width": 0}), ("width", {"width": 7}), ("height", {"height": 10**9}),
                 ("steps", {"steps": 0}), ("steps", {"steps": "ten"}), ("steps", {"steps": 10**30}),
                 ("prompt", {"prompt": "x" * (1 << 20)}), ("prompt", {"prompt": "a\u0000b"}),
                 ("prompt", {"prompt": ["a"]}), ("cfg_scale", {"cfg_scale": [1]}),
                 ("batch_size", {"batch_size": 0}), ("n_iter", {"n_iter": 10**9}),
                 ("sampler", {"sampler_name": "no such sampler"}), ("seed", {"seed": "seven"})]
        for field, change in cases:
            with self.subTest(change=str(change)[:60]):
                status, answer = self.draw(**change)
                self.assertIn(status, (400, 404, 422), answer)
                self.assertIn(field, json.dumps(answer).lower())
        status, _, body = self.server.call("POST", "/sdapi/v1/txt2img", b'{"prompt": "a\xff"}')
        self.assertIn(status, (400, 422), body)
        status, _, body = self.server.call("POST", "/sdapi/v1/txt2img", b'{"prompt": ')
        self.assertIn(status, (400, 422), body)
        status, _, body = self.server.call("POST", "/sdapi/v1/txt2img", b"[" * 100000)
        self.assertIn(status, (400, 422), body)
        self.assertEqual(self.server.call("GET", "/no/such/route")[0], 404)
        self.assertEqual(self.server.call("DELETE", "/sdapi/v1/txt2img")[0], 405)
        self.assertEqual(self.draw()[0], 200)

    def test_body_over_the_limit_is_413_and_the_next_is_served(self):
        try:
            status = self.server.call("POST", "/sdapi/v1/txt2img", b"x" * (40 << 20))[0]
        except (ConnectionError, OSError):
            status = 413  # the server may close before the client has sent all of it
        self.assertEqual(status, 413)
        self.assertEqual(self.draw()[0], 200)

    def test_progress_interrupt_health_and_metrics(self):
        status, _, body = self.server.call("GET", "/sdapi/v1/progress")
        self.assertEqual(status, 200)
        self.assertIn("progress", json.loads(body))
        answers = []
        long_job = threading.Thread(target=lambda: answers.append(self.draw(steps=200, width=256, height=256)))
        long_job.start()
        seen = 0.0
        while long_job.is_alive() and seen == 0.0:
            seen = json.loads(self.server.call("GET", "/sdapi/v1/progress")[2])["progress"]
        self.assertGreater(seen, 0.0)
        self.assertEqual(self.server.call("POST", "/sdapi/v1/interrupt")[0], 200)
        long_job.join(60)
        self.assertEqual(answers[0][0], 200)
        self.assertEqual(self.server.call("GET", "/v2/health/live")[0], 200)
        metrics = self.server.call("GET", "/metrics")[2].decode()
        for name in ("octavo_", "denoise"):
            self.assertIn(name, metrics)


class Shutdown(unittest.TestCase):
    def test_sigterm_finishes_what_runs_and_exits_zero(self):
        with Server() as server:
            answers = []

            def draw():
                answers.append(server.call("POST", "/sdapi/v1/txt2img", {**CALL, "steps": 30}))

            client = threading.Thread(target=draw)
            client.start()
            while json.loads(server.call("GET", "/sdapi/v1/progress")[2])["progress"] == 0.0 and client.is_alive():
                pass
            self.assertEqual(server.terminate(), 0, "".join(server.lines))
            client.join(60)
            self.assertEqual(answers[0][0], 200)

    def test_a_taken_port_is_named(self):
        from octavo_process import run
        with Server() as server:
            done = run("serve", "--port", str(server.port))
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(str(server.port), done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
