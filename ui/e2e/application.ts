import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = resolve(fileURLToPath(new URL('../..', import.meta.url)));

export interface Task {
  agent_id: string;
  status: string;
  percentage: number;
  attempt: number;
  logs: { message: string; percentage: number | null; status: string }[];
}

export interface Options {
  /** Seconds that the model takes to answer. */
  pace?: number;
  workers?: number;
  env?: Record<string, string>;
}

/** The example application, which `run.py` starts: web app, page, worker and mock model on a new SQLite file. */
export class Application {
  readonly url: string;
  readonly folder: string;
  readonly #process: ChildProcess;
  readonly #output: string[];

  private constructor(url: string, folder: string, process: ChildProcess, output: string[]) {
    this.url = url;
    this.folder = folder;
    this.#process = process;
    this.#output = output;
  }

  /** Start the application; resolves when it answers. Rejects with its output if it ends before. */
  static async start({ pace = 0.4, workers = 1, env = {} }: Options = {}): Promise<Application> {
    const folder = mkdtempSync(join(tmpdir(), 'agentexec-e2e-'));
    const arguments_ = ['--port', '0', '--pace', String(pace), '--workers', String(workers)];
    const child = spawn(python(), [join(ROOT, 'examples/openai-agents-fastapi/run.py'), ...arguments_], {
      cwd: folder,
      env: {
        ...cleanEnvironment(),
        PYTHONUNBUFFERED: '1',
        DATABASE_URL: `sqlite:///${join(folder, 'app.db')}`,
        ...env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    process.once('exit', () => child.kill('SIGINT')); // a fixture that ran out of time stops nothing
    const output: string[] = [];
    const url = await new Promise<string>((done, fail) => {
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding('utf8').on('data', (text: string) => {
          output.push(text);
          const found = /The application is at (\S+)\//.exec(output.join(''));
          if (found?.[1]) done(found[1]);
        });
      }
      child.on('error', fail);
      child.on('exit', (code) => fail(new Error(`run.py ended with code ${code}:\n${output.join('')}`)));
    });
    return new Application(url, folder, child, output);
  }

  /** What all processes have printed so far. */
  get output(): string {
    return this.#output.join('');
  }

  async get<Answer>(path: string): Promise<Answer> {
    const response = await fetch(this.url + path);
    if (!response.ok) throw new Error(`GET ${path}: ${response.status} ${await response.text()}`);
    return (await response.json()) as Answer;
  }

  task(agentId: string): Promise<Task> {
    return this.get<Task>(`/api/activity/${agentId}`);
  }

  /** Kill the workers that run tasks. The API may still list one that an earlier test has killed. */
  async killWorkers(): Promise<void> {
    const workers = await this.get<{ pid: number }[]>('/api/workers');
    const killed = workers.filter(({ pid }) => {
      try {
        return process.kill(pid, 'SIGKILL');
      } catch {
        return false;
      }
    });
    if (killed.length === 0) throw new Error('No worker was alive.');
  }

  async stop(): Promise<void> {
    const ended = new Promise((done) => this.#process.once('exit', done));
    if (this.#process.exitCode === null) {
      this.#process.kill('SIGINT');
      await ended;
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Python of ./dev, which exports VIRTUAL_ENV. */
function python(): string {
  return join(process.env.VIRTUAL_ENV ?? join(ROOT, '.venv'), 'bin/python');
}

/** The environment without a developer's settings of agentexec, and without a key for a real model. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  const foreign = /^(AGENTEXEC_|OPENAI_)|^(DATABASE|REDIS)_URL$/;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !foreign.test(name)));
}
